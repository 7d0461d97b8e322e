"""The states of a workflow, and which of them are final.

Written in one place because the ORM models, the store and the handles must agree on them.
"""

from enum import StrEnum

__all__ = ["LIVE_STATES", "TERMINAL_STATES", "WorkflowState"]


class WorkflowState(StrEnum):
    """What a workflow is doing, as stored in ``WorkflowStatus.status``.

    A member's name is its value, so that every driver stores the same text, whichever it takes.
    """

    ENQUEUED = "ENQUEUED"
    """Waits for a process to claim it."""
    DELAYED = "DELAYED"
    """Waits for its ``delay_until``, then becomes ENQUEUED."""
    PENDING = "PENDING"
    """Owned by a process that runs it, or suspended until something it waits for happens."""
    SUCCESS = "SUCCESS"
    """Returned; ``output`` holds the value."""
    ERROR = "ERROR"
    """Raised; ``error`` holds the exception."""
    CANCELLED = "CANCELLED"
    """Stopped by a person, by its parent or by its deadline; can be resumed."""
    MAX_RECOVERY_ATTEMPTS_EXCEEDED = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
    """Given up after too many take-overs without progress; can be resumed."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing will happen to the workflow until somebody asks for it."""
        return self in TERMINAL_STATES

    @property
    def is_live(self) -> bool:
        """Whether the workflow waits, runs or is suspended."""
        return self in LIVE_STATES


LIVE_STATES = frozenset({WorkflowState.ENQUEUED, WorkflowState.DELAYED, WorkflowState.PENDING})
TERMINAL_STATES = frozenset(WorkflowState) - LIVE_STATES
