"""Work that cannot be started or found."""

from __future__ import annotations

from collections.abc import Collection

from dbos_orm.errors._base import DBOSError


class ArgumentError(DBOSError):
    """An argument of a workflow with ``coerce=True`` is not what its annotation says, and cannot be made so."""

    def __init__(self, name: str, argument: str, problem: str, given: str) -> None:
        self.name, self.argument, self.problem, self.given = name, argument, problem, given
        super().__init__(f"workflow {name!r}, argument {argument}: {problem}, got {given}; nothing was started")


class ConflictingWorkflowError(DBOSError):
    """A known workflow ID was given to another start: ``field`` ("name", "application", "queue") differs."""

    def __init__(self, workflow_id: str, field: str, recorded: str | None, given: str | None) -> None:
        self.workflow_id, self.field, self.recorded, self.given = workflow_id, field, recorded, given
        super().__init__(
            f"workflow {workflow_id!r} exists with {field} {recorded!r}, but was now started with {field} "
            f"{given!r}; use another workflow ID"
        )


class WorkflowExistsError(DBOSError):
    """The workflow ID is in use, and the caller asked for on_existing="raise"."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(
            f'workflow {workflow_id!r} exists already; for a handle to it start without on_existing="raise"'
        )


class WorkflowNotFoundError(DBOSError):
    """No workflow of this ID is in the database."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(
            f"workflow {workflow_id!r} does not exist in this database; "
            "check the ID, and that the transaction which started it was committed"
        )


class QueueNotFoundError(DBOSError):
    """No queue of this name is declared in code or in the database."""

    def __init__(self, queue: str, known: Collection[str]) -> None:
        self.queue, self.known = queue, sorted(known)
        super().__init__(f"queue {queue!r} does not exist; known: {self.known}; declare it with dbos.queue({queue!r})")


class QueueNotEmptyError(DBOSError):
    """A queue cannot be deleted while ``live`` workflows wait or run in it."""

    def __init__(self, queue: str, live: int) -> None:
        self.queue, self.live = queue, live
        super().__init__(
            f"queue {queue!r} holds {live} live workflows and cannot be deleted; let them end or cancel them first "
            f"(dbos.queues.pause({queue!r}) stops what comes next)"
        )


class DeduplicationError(DBOSError):
    """A live workflow of the queue holds the deduplication ID; ``workflow_id`` is that workflow."""

    def __init__(self, queue: str, deduplication_id: str, workflow_id: str | None) -> None:
        self.queue, self.deduplication_id, self.workflow_id = queue, deduplication_id, workflow_id
        super().__init__(
            f"queue {queue!r}: the live workflow {workflow_id!r} has deduplication ID {deduplication_id!r}; "
            'wait for it, or start with on_duplicate="return"'
        )


class NotDelayedError(DBOSError):
    """The delay of a workflow cannot be changed, because it waits for no instant (any more)."""

    def __init__(self, workflow_id: str, status: str) -> None:
        self.workflow_id, self.status = workflow_id, status
        super().__init__(
            f"the delay of workflow {workflow_id!r} cannot be changed: it is {status!r}, expected 'DELAYED'; "
            "start it with delay= or debounce=, and change that before it is over"
        )


class ScheduleNotFoundError(DBOSError):
    """No schedule of this name is in the database."""

    def __init__(self, schedule: str, known: Collection[str]) -> None:
        self.schedule, self.known = schedule, sorted(known)
        super().__init__(
            f"schedule {schedule!r} does not exist; known: {self.known}; declare it with @dbos.scheduled(...), which "
            "stores it at launch, or make it with dbos.schedules.create(...)"
        )


class ScheduleExistsError(DBOSError):
    """A schedule of this name is in the database already."""

    def __init__(self, schedule: str) -> None:
        self.schedule = schedule
        super().__init__(
            f"schedule {schedule!r} exists already; give the new one another name, or change this one with "
            f"dbos.schedules.set({schedule!r}, ...)"
        )


class NotAuthorizedError(DBOSError):
    """The workflow requires one of some roles, and the caller has none of them."""

    def __init__(self, name: str, required: Collection[str], roles: Collection[str]) -> None:
        self.name, self.required, self.roles = name, sorted(required), sorted(roles)
        super().__init__(
            f"workflow {name!r} requires one of the roles {self.required}, but the caller has "
            f"{self.roles}; start it as a user who has one"
        )
