"""Steps that run in other threads, seen from the code that submitted them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from dbos_orm._context import Frame, current_transaction
from dbos_orm._drivers.binding import Binding
from dbos_orm._drivers.time_limits import begin
from dbos_orm._flows.effects import Flow, Outcome
from dbos_orm._outcomes import unwrap
from dbos_orm.config import Duration, seconds
from dbos_orm.errors import SessionMisuseError

R_co = TypeVar("R_co", covariant=True)


class StepFuture(Generic[R_co]):
    """The result of a step that was submitted, as soon as there is one."""

    def __init__(
        self,
        binding: Binding | None,
        name: str,
        await_outcome: Callable[[float | None], Outcome],
        is_done: Callable[[], bool],
    ) -> None:
        self._binding = binding
        self._name = name
        self._await_outcome = await_outcome
        self._is_done = is_done

    def result(self, timeout: Duration | None = None) -> R_co:
        """What the step returned, or raise what it raised; any number of times.

        Without a timeout, a step for which no thread was free runs in the calling one. Do not decide by a timeout
        or by ``done()`` which steps a workflow calls next: a replay has other timing. Limit the step instead.

        Raises:
            TimeoutError: ``timeout`` (seconds or timedelta) has passed; the step goes on.
            SessionMisuseError: it is not done, and a transaction is running here, for which it might have to wait.
            ConfigurationError: it is not done, and an event loop runs on this thread, which would stop.
        """
        if not self._is_done():
            refuse_in_transaction(self._name, "result()")
            if self._binding is not None:
                self._binding.driver.require_blockable()
        patience = None if timeout is None else seconds(timeout, field="timeout")
        value: R_co = unwrap(self._await_outcome(patience))
        return value

    def done(self) -> bool:
        """Whether ``result()`` would return or raise at once."""
        return self._is_done()


def submit(binding: Binding, frame: Frame, name: str, flow: Flow[Outcome]) -> StepFuture[Any]:
    """Have a step of a workflow run beside it."""
    submitted = binding.driver.submit(frame.run, flow)
    await_outcome = partial(binding.driver.await_submitted, submitted)
    return StepFuture(binding, name, await_outcome, lambda: submitted.is_done)


def submit_plain(binding: Binding | None, name: str, call: Callable[[], Any]) -> StepFuture[Any]:
    """Have a plain call run in a thread of its own."""
    outcome = begin(call, f"dbos-step {name}")
    return StepFuture(binding, name, outcome.result, outcome.done)


def refuse_in_transaction(name: str, operation: str = "submit()") -> None:
    """Refuse to run something beside a transaction, or to wait for it there.

    The session belongs to one thread; and what is waited for may wait for the transaction: where one writes at a
    time, for ever.
    """
    if current_transaction.get() is not None:
        raise SessionMisuseError(
            f"{name}.{operation} in a transaction",
            "call it directly, or submit and await it in the workflow: a session belongs to one thread",
        )
