"""How steps and workflows end without a result of their own, and what unwinds them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from dbos_orm._portable_errors import Reduced, reduced
from dbos_orm.errors._base import DBOSError, stand_in


class StepTimeoutError(DBOSError):
    """One attempt of a step took longer than the step's timeout."""

    def __init__(self, step: str, timeout: timedelta) -> None:
        self.step, self.timeout = step, timeout
        super().__init__(
            f"step {step!r} did not finish within {timeout.total_seconds():g} s; "
            "give it a longer timeout=, or retry it with retry=Retry(...)"
        )


class MaxStepRetriesExceededError(DBOSError):
    """Every attempt of a step failed; ``errors`` holds what each of them raised, the first one first."""

    def __init__(self, step: str, attempts: int, errors: Sequence[BaseException]) -> None:
        self.step, self.attempts, self.errors = step, attempts, list(errors)
        last = f" (last: {type(self.errors[-1]).__name__}: {self.errors[-1]})" if self.errors else ""
        super().__init__(f"step {step!r} failed in each of {attempts} attempts{last}; all are in .errors")


class MaxRecoveryAttemptsExceededError(DBOSError):
    """The workflow was taken over again and again without recording a new step, and was given up."""

    def __init__(self, workflow_id: str, attempts: int, reason: str) -> None:
        self.workflow_id, self.attempts, self.reason = workflow_id, attempts, reason
        super().__init__(
            f"workflow {workflow_id!r} was given up after {attempts} recoveries: {reason}; "
            "remove the cause, then start the work again under another workflow ID"
        )


class WorkflowCancelledError(DBOSError):
    """The awaited workflow was cancelled and has no result."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(f"workflow {workflow_id!r} was cancelled; it has no result")


class WorkflowTimeoutError(DBOSError):
    """The awaited workflow met its own deadline (a caller who waited long enough gets ``TimeoutError``)."""

    def __init__(self, workflow_id: str, deadline: datetime | None) -> None:
        self.workflow_id, self.deadline = workflow_id, deadline
        when = "its deadline" if deadline is None else f"its deadline {deadline.isoformat()}"
        super().__init__(
            f"workflow {workflow_id!r} was cancelled at {when}; start it with a longer timeout= or a later deadline="
        )


class _Unwinding(BaseException):
    """Passes through user code to the driver; not an Exception, so that it is not swallowed by accident."""

    _meaning = "is unwound"

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(f"workflow {workflow_id!r} {self._meaning}; let this exception pass")

    def __reduce__(self) -> Reduced:
        return reduced(self, stand_in)


class WorkflowCancelled(_Unwinding):
    """Raised in a workflow at its next durable operation after it was cancelled; ``finally`` blocks run."""

    _meaning = "was cancelled"


class WorkflowSuspended(_Unwinding):
    """Raised in a waiting workflow that gives up its thread; it runs again later. Hold no lock in a wait."""

    _meaning = "gives up its thread while it waits"


class OwnershipLost(_Unwinding):
    """Raised in a run whose workflow another process owns now: it ends quietly and records nothing."""

    _meaning = "belongs to another process now"
