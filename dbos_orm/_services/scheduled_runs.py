"""From a schedule's row to the runs of its slots."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.engine import Connection

from dbos_orm._context import logger
from dbos_orm._dialects import Dialect
from dbos_orm._drivers.binding import Application
from dbos_orm._registry import RegisteredWorkflow, Registry
from dbos_orm._services.cron import After, text_timetable
from dbos_orm._starting import entry_of, payload_of
from dbos_orm._store import checkpoints, schedules
from dbos_orm._store.entries import INTERNAL_QUEUE, RunStart
from dbos_orm._store.history import find_run
from dbos_orm._store.schedules import StoredSchedule
from dbos_orm.errors import ConfigurationError, NotRegisteredError, QueueNotFoundError


def clock_of(registry: Registry, schedule: StoredSchedule) -> After | None:
    """What gives the slots of a schedule here; None if it is for another process to go on with.

    Cron text is read from the row, which may have been changed; a trigger is the one of the code, as
    long as the row is about the same one.

    Raises:
        ConfigurationError: the row's text or zone means nothing here.
    """
    if schedule.expression is not None:
        return text_timetable(schedule.expression, schedule.timezone).after
    declared = registry.schedule(schedule.name)
    return declared.after if declared is not None and declared.trigger == schedule.trigger else None


def is_for_us(registry: Registry, schedule: StoredSchedule) -> bool:
    """Whether this process may start the runs of a schedule: it has the workflow, and declares what code declares."""
    if schedule.declared and registry.schedule(schedule.name) is None:
        return False
    try:
        workflow_of(registry, schedule)
    except NotRegisteredError:
        return False
    return schedule.expression is not None or clock_of(registry, schedule) is not None


def workflow_of(registry: Registry, schedule: StoredSchedule) -> RegisteredWorkflow:
    """The workflow that a schedule starts.

    Raises:
        NotRegisteredError: this process has none of its name.
    """
    return registry.workflow(schedule.workflow_name, schedule.class_name, schedule.config_name)


def require_queue(connection: Connection, registry: Registry, application: str, queue: str) -> None:
    """Return if runs of a schedule can wait in a queue.

    Raises:
        QueueNotFoundError: neither code nor the database has it.
        ConfigurationError: it is partitioned, and the runs of a schedule have no partition key.
    """
    known = schedules.known_queues(connection, application)
    known |= {settings.name: settings.partitioned for settings in registry.queues}
    if queue not in known:
        raise QueueNotFoundError(queue, known)
    if known[queue]:
        raise ConfigurationError(
            "queue", queue, "a queue without partitions", "a schedule has no partition key: start the work from its run"
        )


def slot_id(application: str, schedule: str, slot: datetime) -> str:
    """The workflow ID of the run of one slot: whoever starts it, it is one run."""
    return f"sched-{application}-{schedule}-{slot.astimezone(UTC).isoformat()}"


def run_of(
    application: Application, schedule: StoredSchedule, slot: datetime, now: datetime, workflow_id: str | None = None
) -> RunStart:
    """The run of a slot (or of ``workflow_id``), to be claimed from the schedule's queue.

    Raises:
        NotRegisteredError: this process does not have the workflow.
        SerializationError: the context cannot be read here.
    """
    workflow = workflow_of(application.registry, schedule)
    arguments: tuple[object, ...] = (slot, now)
    if schedule.context is not None:
        arguments = (*arguments, application.codec.decode(schedule.context, schedule.serializer))
    keywords: dict[str, object] = {}
    if workflow.coerce is not None:
        arguments, keywords = workflow.coerce(arguments, keywords)
    found = workflow_id or slot_id(application.name, schedule.name, slot)
    payload = payload_of(application, workflow, arguments, keywords)
    entry = entry_of(application, workflow, payload, {"workflow_id": found}, launch=None, parent=None)
    entry.queue, entry.schedule = schedule.queue or INTERNAL_QUEUE, schedule.name
    return entry


def insert_runs(connection: Connection, dialect: Dialect, entries: Sequence[RunStart]) -> list[bool]:
    """Write the runs that are not there yet, and say of each whether it was; one that is there stays as it is."""
    written = checkpoints.write(connection, dialect, entries, skip_locked=False) if entries else set()
    for number, entry in enumerate(entries):
        found = None if number in written else find_run(connection, entry.workflow_id)
        if found is not None and (found.application, found.name) != (entry.application, entry.name):
            logger.error(
                "schedule %r: workflow ID %r belongs to workflow %r of application %r; the slot is not run; give the "
                "schedule another name",
                entry.schedule,
                entry.workflow_id,
                found.name,
                found.application,
            )
    return [number in written for number in range(len(entries))]
