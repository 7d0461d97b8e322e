"""Starts that meet another workflow in their place: with the same ID, deduplication ID or key of a debounce."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import case, literal, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.types import BigInteger, TypeEngine

from dbos_orm._context import logger
from dbos_orm._dialects import Dialect
from dbos_orm._queue_settings import QueueSettings
from dbos_orm._registry import Registry
from dbos_orm._states import LIVE_STATES, WorkflowState
from dbos_orm._store import checkpoints
from dbos_orm._store.entries import INTERNAL_QUEUE, RunStart, StepEntry
from dbos_orm._store.history import RecordedRun, find_run
from dbos_orm._store.queues import fill_in
from dbos_orm.errors import (
    ConfigurationError,
    ConflictingWorkflowError,
    DBOSError,
    DeduplicationError,
    QueueNotFoundError,
    WorkflowExistsError,
)
from dbos_orm.models import Queue, StepOutput, WorkflowStatus

_STATUS: Final = WorkflowStatus.__table__
_DEDUPLICATION: Final = next(index for index in _STATUS.indexes if str(index.name).endswith("deduplication"))
_DEBOUNCED_FIELDS: Final[dict[str, TypeEngine[Any]]] = {**checkpoints.QUEUED_FIELDS, "longest_delay": BigInteger()}


class Start(NamedTuple):
    """A new workflow, and what is to be done if its ID or its deduplication ID is known: "raise" or "return"."""

    entry: RunStart
    on_existing: str = "return"
    on_duplicate: str = "raise"


class Placed(NamedTuple):
    """What a start came to: its own workflow (``created``), or the one in its place."""

    workflow_id: str
    created: bool


def waiting_place(entry: RunStart) -> tuple[str, str]:
    """Where a workflow without an owner waits: queue and name."""
    return entry.queue or INTERNAL_QUEUE, entry.name


# -- queues --------------------------------------------------------------------------------------


def load_queues(connection: Connection, application: str) -> dict[str, bool]:
    """The queues that have a row, and whether each is partitioned."""
    rows = connection.execute(select(Queue.name, Queue.partitioned).where(Queue.application == application))
    return {row.name: row.partitioned for row in rows}


def fill_in_and_load(
    connection: Connection, dialect: Dialect, application: str, settings: Sequence[QueueSettings]
) -> dict[str, bool]:
    """``load_queues``, with the rows of these queues if they had none."""
    fill_in(connection, dialect, application, settings)
    return load_queues(connection, application)


def require_queue(entry: RunStart, stored: Mapping[str, bool], registry: Registry) -> None:
    """Return if a new workflow can wait where it is to wait; the row of a queue counts more than what code declares.

    Raises:
        QueueNotFoundError: nobody knows the queue.
        ConfigurationError: its partition key is missing, or is one too many.
    """
    queue = entry.queue
    if queue is None or queue == INTERNAL_QUEUE:
        return
    declared = registry.queue(queue)
    partitioned = stored.get(queue, None if declared is None else declared.partitioned)
    if partitioned is None:
        raise QueueNotFoundError(queue, {*stored, *(one.name for one in registry.queues)})
    if partitioned and entry.partition_key is None:
        expected = f"a text, because queue {queue!r} is partitioned"
        raise ConfigurationError("partition_key", None, expected, "say for whom: options(partition_key=tenant)")
    if not partitioned and entry.partition_key is not None:
        expected = f"none, because queue {queue!r} is not partitioned"
        raise ConfigurationError("partition_key", entry.partition_key, expected, "leave it out")


# -- what is in the way --------------------------------------------------------------------------


def require_same_workflow(found: RecordedRun, entry: RunStart) -> None:
    """Refuse a known workflow in whose place something else was started.

    Raises:
        ConflictingWorkflowError: it names what differs.
    """
    for field in ("application", "name", "class_name", "config_name"):
        recorded, given = getattr(found, field), getattr(entry, field)
        if recorded != given:
            raise ConflictingWorkflowError(found.workflow_id, field, recorded, given)
    # Whoever starts it without a queue asks for the workflow, wherever that waits.
    if entry.queue is not None and INTERNAL_QUEUE != entry.queue != found.queue:
        recorded = None if found.queue == INTERNAL_QUEUE else found.queue
        raise ConflictingWorkflowError(found.workflow_id, "queue", recorded, entry.queue)


def require_expected(found: RecordedRun, start: Start) -> None:
    """Return if the workflow ``found`` may be what a start gives its caller.

    Raises:
        ConflictingWorkflowError: it is another function's, or application's, or in another queue.
        WorkflowExistsError, DeduplicationError: the caller wants a new one.
    """
    entry = start.entry
    require_same_workflow(found, entry)
    if found.workflow_id == entry.workflow_id:
        if start.on_existing == "raise":
            raise WorkflowExistsError(entry.workflow_id)
        warn_of_other_arguments(found, entry)
    elif start.on_duplicate == "raise":
        raise DeduplicationError(str(entry.queue), str(entry.deduplication_id), found.workflow_id)


def warn_of_other_arguments(found: RecordedRun, entry: RunStart) -> None:
    """Tell the log that a known ID was started with arguments that do not count."""
    if found.input != entry.input:
        logger.warning(
            "workflow %r exists with other arguments; those that are recorded count",
            found.workflow_id,
            extra={"workflow_id": found.workflow_id},
        )


def find_in_place(connection: Connection, entry: RunStart) -> RecordedRun | None:
    """The workflow that has the ID of a new one, or else the live one that has its deduplication ID in its queue."""
    found = find_run(connection, entry.workflow_id)
    if found is None and entry.deduplication_id is not None:
        row = connection.execute(
            select(*(getattr(WorkflowStatus, name) for name in RecordedRun._fields)).where(
                WorkflowStatus.application == entry.application,
                WorkflowStatus.queue == entry.queue,
                WorkflowStatus.deduplication_id == entry.deduplication_id,
                WorkflowStatus.status.in_(sorted(LIVE_STATES)),
            )
        ).one_or_none()
        found = None if row is None else RecordedRun(*row)._replace(status=WorkflowState(row.status))
    return found


# -- writing -------------------------------------------------------------------------------------


def place(connection: Connection, dialect: Dialect, start: Start) -> Placed:
    """Write a new workflow in a transaction of the caller's, or find the one in its place; raises as
    ``require_expected``.
    """
    entry = start.entry
    if entry.is_debounced:
        return debounce(connection, dialect, entry)
    # Again, if what was in the way was deleted or had ended before it could be looked at.
    while not checkpoints.insert_run(connection, dialect, entry):
        found = find_in_place(connection, entry)
        if found is not None and found.generation == entry.generation:
            break
        if found is not None:
            require_expected(found, start)
            return Placed(found.workflow_id, created=False)
    return Placed(entry.workflow_id, created=True)


def debounce(connection: Connection, dialect: Dialect, entry: RunStart) -> Placed:
    """Write a new workflow that waits, or give the one that waits with its key its arguments, and more time.

    In a transaction of the caller's. The row that waits is never moved beyond its ``debounce_until``.
    """
    if entry.parent_id is not None and (found := find_run(connection, entry.workflow_id)) is not None:
        # A child's ID is not new where its parent went through here before; an upsert knows one index only.
        return Placed(found.workflow_id, created=found.generation == entry.generation)
    statement = dialect.prepared("debounced_start", partial(_debouncing, dialect))
    values = checkpoints.queued_row(entry) | {"longest_delay": entry.longest_delay}
    while True:
        rows = statement.execute(connection, values)
        if rows:
            return Placed(rows[0][0], created=rows[0][1] == entry.generation)
        # It waits no longer, and kept its key.
        connection.execute(
            update(WorkflowStatus)
            .where(
                WorkflowStatus.application == entry.application,
                WorkflowStatus.queue == entry.queue,
                WorkflowStatus.deduplication_id == entry.deduplication_id,
                WorkflowStatus.status != WorkflowState.DELAYED,
            )
            .values(deduplication_id=None)
            .execution_options(synchronize_session=False)
        )


def _debouncing(dialect: Dialect) -> Any:
    given = dialect.one_row(_DEBOUNCED_FIELDS)
    inserted = checkpoints.insertion_of_runs(dialect, given, _DEBOUNCED_FIELDS)
    pushed, latest = inserted.excluded.delay_until, _STATUS.c.debounce_until
    return inserted.on_conflict_do_update(
        index_elements=list(_DEDUPLICATION.columns),
        index_where=_DEDUPLICATION.dialect_options["postgresql"]["where"],
        set_={
            "input": inserted.excluded.input,
            "serializer": inserted.excluded.serializer,
            "delay_until": case((latest.is_(None) | (pushed < latest), pushed), else_=latest),
            "updated_at": inserted.excluded.updated_at,
        },
        where=_STATUS.c.status == WorkflowState.DELAYED.value,
    ).returning(_STATUS.c.workflow_id, _STATUS.c.generation)


def set_delay(connection: Connection, dialect: Dialect, workflow_id: str, delay: int) -> tuple[str, str] | None:
    """Have a DELAYED workflow wait for so many microseconds from now; gives its queue and name, None if it is not."""
    moved = connection.execute(
        update(WorkflowStatus)
        .where(WorkflowStatus.workflow_id == workflow_id, WorkflowStatus.status == WorkflowState.DELAYED)
        .values(
            delay_until=dialect.plus_microseconds(dialect.now(), literal(delay, BigInteger)), updated_at=dialect.now()
        )
        .returning(WorkflowStatus.queue, WorkflowStatus.name)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if moved is None else (moved.queue or INTERNAL_QUEUE, moved.name)


class RecordedChild(NamedTuple):
    """What the step of a parent holds of a child: its ID, or the encoded error that kept it from being started."""

    child_id: str | None
    error: str | None


def place_child(
    connection: Connection, dialect: Dialect, step: StepEntry, child: Start, encode_error: Callable[[DBOSError], str]
) -> RecordedChild | None:
    """Record a step that starts a workflow, and start it or find the one in its place; in one transaction.

    None if the step was not recorded, because its run has ended or has recorded it before: then nothing
    was done. ``step`` is written with the ID of the child in it.
    """
    dialect.bound_locks(connection)
    # The step row comes first: a child exists only if its parent's record of it was written now.
    if not checkpoints.write(connection, dialect, [step], skip_locked=False):
        return None
    try:
        recorded = RecordedChild(place(connection, dialect, child).workflow_id, None)
    except DBOSError as error:
        recorded = RecordedChild(None, encode_error(error))
    if recorded.child_id != step.child_id:
        connection.execute(
            update(StepOutput)
            .where(
                StepOutput.workflow_id == step.workflow_id,
                StepOutput.scope == step.scope,
                StepOutput.step_id == step.step_id,
            )
            .values(child_id=recorded.child_id, error=recorded.error)
            .execution_options(synchronize_session=False)
        )
    return recorded
