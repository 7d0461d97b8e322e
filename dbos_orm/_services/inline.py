"""The work of an inline launch: done when somebody asks for it, on their stack."""

from __future__ import annotations

from functools import partial
from math import inf

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Launch, Run
from dbos_orm._drivers.inline import InlineBinding
from dbos_orm._drivers.report import report
from dbos_orm._drivers.service_loop import CoroutineGateway
from dbos_orm._flows.effects import Execute, Outcome
from dbos_orm._outcomes import Raised
from dbos_orm._services.dispatch import Dispatch
from dbos_orm._services.intake import Intake
from dbos_orm._store.delays import promote_due
from dbos_orm._store.overview import observe


class InlineWork:
    """Claims what is ready and runs it, one workflow after another, until nothing is."""

    def __init__(self, binding: InlineBinding, launch: Launch) -> None:
        self._binding = binding
        self._intake = Intake(binding, launch)
        self._dispatch = Dispatch(binding, self._intake)
        self._executor_id = launch.executor_id
        binding.runs.ended = self._has_ended
        self._ran = 0

    def drain(self, seconds: float = inf) -> int:
        """Run what is ready, and what that makes ready; begin nothing after ``seconds``. Gives how many ran.

        Raises:
            BaseException: an exit that is no outcome of a workflow (KeyboardInterrupt, pytest.fail) is the caller's.
        """
        ends, before = steady_seconds() + seconds, self._ran
        while steady_seconds() < ends and self._has_claimed():
            run, body = self._binding.ready.popleft()
            self._ran += 1
            _end(run, self._binding.driver.perform(Execute(run, body)))
        return self._ran - before

    async def drain_async(self, seconds: float = inf) -> int:
        """``drain`` for a coroutine."""
        driver, gateway = self._binding.async_driver, self._binding.gateway
        assert driver is not None
        assert isinstance(gateway, CoroutineGateway)
        ends, before = steady_seconds() + seconds, self._ran
        while steady_seconds() < ends and await gateway.attempt_async(self._has_claimed, None):
            if not self._binding.ready:
                continue  # Another coroutine has taken it.
            run, body = self._binding.ready.popleft()
            self._ran += 1
            _end(run, await driver.perform(Execute(run, body)))
        return self._ran - before

    def _has_claimed(self) -> bool:
        # A claim that can not be run here is none; there may be more behind it.
        while not self._binding.ready:
            self._look()
            claimed, _ = self._dispatch.claim()
            self._intake.hold_unreadable()
            if not claimed:
                return False
        return True

    def _look(self) -> None:
        gateway, dialect = self._binding.gateway, self._binding.dialect
        application, asked_at = self._binding.environment.application, steady_seconds()
        gateway.transaction(partial(promote_due, dialect=dialect, application=application))
        verb = partial(observe, dialect=dialect, application=application, executor_id=self._executor_id)
        self._dispatch.hurry()
        self._dispatch.see(gateway.read(verb), asked_at)

    def _has_ended(self, run: Run) -> None:
        self._intake.slots.release(run)


def _end(run: Run, outcome: Outcome) -> None:
    report(run, outcome)
    if isinstance(outcome, Raised) and not isinstance(outcome.error, Exception) and outcome.error is not run.stop:
        # The run was handed over, and would be ready here again.
        raise outcome.error
