"""Handles: a workflow seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Generic, NoReturn, TypeVar

from sqlalchemy.util import greenlet_spawn

from dbos_orm._context import current_transaction
from dbos_orm._drivers.async_driver import AsyncDriver
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows import inspecting, operating, running
from dbos_orm._flows.effects import Flow, Outcome
from dbos_orm._flows.environment import Environment
from dbos_orm._outbox import Staging
from dbos_orm._outcomes import Raised, Returned, unwrap
from dbos_orm._runtime import Runtime, body_frame
from dbos_orm._states import WorkflowState
from dbos_orm._store.snapshots import StepInfo, WorkflowInfo
from dbos_orm.config import Duration, seconds
from dbos_orm.errors import (
    ConfigurationError,
    DBOSError,
    NotCommittedError,
    SessionMisuseError,
    WorkflowCancelled,
)
from dbos_orm.models import WorkflowStatus

__all__ = [
    "AsyncStagedHandle",
    "AsyncWorkflowHandle",
    "StagedHandle",
    "StepInfo",
    "WorkflowHandle",
    "WorkflowInfo",
]

_MICROSECONDS: Final = 1_000_000

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class _Handle(Generic[R_co]):
    """What both colours of handles share: which flow answers which question."""

    def __init__(self, runtime: Runtime, workflow_id: str, *, created: bool = False) -> None:
        self._runtime = runtime
        self.workflow_id = workflow_id
        self.created = created
        """Whether the call that gave this handle created the workflow; False for an ID that was known."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.workflow_id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a handle belongs to its process and cannot be pickled; pass its workflow_id, {self.workflow_id!r}, and "
            "make another one with workflow.handle(workflow_id)"
        )

    def _result(self, binding: Binding, timeout: Duration | None) -> Flow[Outcome]:
        patience = None if timeout is None else seconds(timeout, field="timeout")
        transaction = current_transaction.get()
        if patience is None and transaction is not None and binding.databases.opened(transaction):
            # Where one writes at a time, the workflow waits for this transaction: both for ever.
            raise SessionMisuseError(
                f"result() of {self.workflow_id!r} without a timeout in transaction {transaction.name!r}",
                "ask in the workflow, before or after the transaction; for one that has ended, result(timeout=0)",
            )
        env, frame = binding.environment, body_frame(self._runtime, "result()")
        if frame is None:
            return running.await_outcome(env, self.workflow_id, seconds=patience)
        return operating.await_in_workflow(env, frame, frame.scope.draw(), self.workflow_id, patience)

    def _asked(self, binding: Binding, name: str, ask: Callable[[Environment, str], Flow[Any]]) -> Flow[Outcome]:
        """A question whose answer is recorded if a workflow asks it, so that a replay decides the same way."""
        env, frame = binding.environment, body_frame(self._runtime, f"{name}()")

        def answer() -> Flow[Outcome]:
            try:
                return Returned((yield from ask(env, self.workflow_id)))
            except DBOSError as error:
                return Raised(error)

        if frame is None:
            return answer()
        return operating.recorded(env, frame, frame.scope.draw(), name, "status", answer)

    def _cancelled(self, binding: Binding, *, children: bool) -> Flow[Outcome]:
        if current_transaction.get() is not None:
            raise SessionMisuseError("cancel() in a transaction", "cancel before or after it, in the workflow")
        return self._asked(binding, "cancel", partial(inspecting.cancel, children=children))

    def _delayed(self, binding: Binding, duration: Duration) -> Flow[Outcome]:
        length = seconds(duration)
        if length < 0:
            raise ConfigurationError("duration", duration, "zero or more", "set_delay(0) has it begin now")
        if current_transaction.get() is not None:
            raise SessionMisuseError("set_delay() in a transaction", "do it before or after it, in the workflow")
        return self._asked(binding, "set_delay", partial(inspecting.set_delay, delay=round(length * _MICROSECONDS)))

    def _stop_here(self, cancelled: list[str]) -> None:
        # Runs of this process hear of it at once; those of others when they look.
        for workflow_id in cancelled:
            run = self._runtime.bound("cancel()").runs.get(workflow_id)
            if run is not None:
                run.end_with(WorkflowCancelled(workflow_id))


class WorkflowHandle(_Handle[R_co]):
    """A workflow that was started, here or in another process. Asking it never changes it, except ``cancel``.

    Asked inside a workflow, the answers are recorded as steps of that workflow.
    """

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the workflow to end and return what it returned, or raise what it raised; any number of times.

        Raises:
            TimeoutError: ``timeout`` (seconds or timedelta) has passed; the workflow goes on.
            SessionMisuseError: it would wait without a limit in a transaction, which the workflow might wait for.
            WorkflowCancelledError, WorkflowTimeoutError: it was cancelled, or met its own deadline.
            MaxRecoveryAttemptsExceededError: it was given up.
            WorkflowNotFoundError: there is no such workflow.
        """
        binding = self._runtime.bound("result()")
        value: R_co = unwrap(binding.driver.run(self._result(binding, timeout)))
        return value

    def status(self) -> WorkflowState:
        """The state of the workflow now.

        Raises:
            WorkflowNotFoundError: there is no such workflow.
        """
        return WorkflowState(self._ask("status", inspecting.status))

    def describe(self) -> WorkflowInfo:
        """A snapshot of the workflow; raises as ``status``."""
        info: WorkflowInfo = self._ask("describe", inspecting.info)
        return info

    def steps(self) -> list[StepInfo]:
        """The steps that are recorded; raises as ``status``."""
        found: list[StepInfo] = self._ask("steps", inspecting.steps)
        return found

    def cancel(self, *, children: bool = True) -> None:
        """Cancel the workflow, and those that it started, before their next step; no effect on one that has ended.

        Raises:
            WorkflowNotFoundError: there is no such workflow.
        """
        binding = self._runtime.bound("cancel()")
        self._stop_here(unwrap(binding.driver.run(self._cancelled(binding, children=children))))

    def set_delay(self, duration: Duration, /) -> None:
        """Have the workflow, which is DELAYED, wait this long from now instead; zero has it begin.

        A workflow that asks this, and is interrupted before the answer is recorded, asks again.

        Raises:
            WorkflowNotFoundError: there is no such workflow.
            NotDelayedError: it is not DELAYED, or no longer.
        """
        binding = self._runtime.bound("set_delay()")
        unwrap(binding.driver.run(self._delayed(binding, duration)))

    def _ask(self, name: str, ask: Callable[[Environment, str], Flow[Any]]) -> Any:
        binding = self._runtime.bound(f"{name}()")
        return unwrap(binding.driver.run(self._asked(binding, name, ask)))


class _Staged(_Handle[R_co]):
    """A handle whose workflow others can see only after a commit: reading it before raises."""

    def __init__(self, runtime: Runtime, staging: Staging) -> None:
        super().__init__(runtime, staging.workflow_id, created=staging.created)
        self._staging = staging
        self._is_stored = False

    def _result(self, binding: Binding, timeout: Duration | None) -> Flow[Outcome]:
        return self._once_stored(binding, "result()", super()._result(binding, timeout))

    def _asked(self, binding: Binding, name: str, ask: Callable[[Environment, str], Flow[Any]]) -> Flow[Outcome]:
        return self._once_stored(binding, f"{name}()", super()._asked(binding, name, ask))

    def _once_stored(self, binding: Binding, operation: str, flow: Flow[Outcome]) -> Flow[Outcome]:
        if not self._is_stored:
            # A known ID may be of a workflow that was committed long ago.
            if self.created and self._staging.is_open:
                raise NotCommittedError(operation, self.workflow_id)
            yield from inspecting.require_stored(binding.environment, self.workflow_id, operation)
            self._is_stored = True
        return (yield from flow)


class StagedHandle(_Staged[R_co], WorkflowHandle[R_co]):
    """A workflow that was started in a transaction of the caller's.

    Its ID may be used at once. Everything else raises ``NotCommittedError`` until the transaction is
    committed, and for good if it is rolled back.
    """

    @property
    def row(self) -> WorkflowStatus:
        """The workflow's row as an object of the caller's session, to relate others to; loaded when it is asked for.

        Raises:
            SessionMisuseError: the workflow was started on a Connection.
        """
        return self._staging.load()


class AsyncWorkflowHandle(_Handle[R_co]):
    """``WorkflowHandle`` for coroutines; the same methods, to be awaited.

    The number of the step that an answer becomes is drawn when it is asked for, not when it is awaited: in a
    workflow, ``asyncio.gather(*(handle.result() for handle in handles))`` is deterministic.
    """

    def result(self, timeout: Duration | None = None) -> Coroutine[None, None, R_co]:
        """Wait for the workflow to end and return what it returned, or raise what it raised; any number of times.

        Raises as ``WorkflowHandle.result``.
        """
        binding = self._runtime.bound("result()")
        return _answer(binding, self._result(binding, timeout))

    def status(self) -> Coroutine[None, None, WorkflowState]:
        """The state of the workflow now; raises ``WorkflowNotFoundError``."""
        return self._ask("status", inspecting.status)

    def describe(self) -> Coroutine[None, None, WorkflowInfo]:
        """A snapshot of the workflow; raises as ``status``."""
        return self._ask("describe", inspecting.info)

    def steps(self) -> Coroutine[None, None, list[StepInfo]]:
        """The steps that are recorded; raises as ``status``."""
        return self._ask("steps", inspecting.steps)

    def cancel(self, *, children: bool = True) -> Coroutine[None, None, None]:
        """Cancel the workflow, and those that it started, before their next step; no effect on one that has ended.

        Raises:
            WorkflowNotFoundError: there is no such workflow.
        """
        binding = self._runtime.bound("cancel()")
        return self._cancel(binding, self._cancelled(binding, children=children))

    def set_delay(self, duration: Duration, /) -> Coroutine[None, None, None]:
        """Have the workflow, which is DELAYED, wait this long from now instead; raises as ``WorkflowHandle``'s."""
        binding = self._runtime.bound("set_delay()")
        return _answer(binding, self._delayed(binding, duration))

    async def _cancel(self, binding: Binding, flow: Flow[Outcome]) -> None:
        self._stop_here(await _answer(binding, flow))

    def _ask(self, name: str, ask: Callable[[Environment, str], Flow[T]]) -> Coroutine[None, None, T]:
        binding = self._runtime.bound(f"{name}()")
        return _answer(binding, self._asked(binding, name, ask))


class AsyncStagedHandle(_Staged[R_co], AsyncWorkflowHandle[R_co]):
    """``StagedHandle`` for coroutines."""

    @property
    def row(self) -> Coroutine[None, None, WorkflowStatus]:
        """The workflow's row, to be awaited: ``order.fulfilment = await handle.row``; raises as ``StagedHandle``."""
        return greenlet_spawn(self._staging.load)


async def _answer(binding: Binding, flow: Flow[Outcome]) -> Any:
    return unwrap(await async_driver_of(binding).run(flow))


def async_driver_of(binding: Binding) -> AsyncDriver:
    """The driver for coroutines; every binding of an AsyncDBOS has one."""
    assert binding.async_driver is not None
    return binding.async_driver
