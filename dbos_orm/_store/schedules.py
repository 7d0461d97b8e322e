"""The rows of schedules: what is due, and who may start its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Label, Row, delete, literal, select, type_coerce, update
from sqlalchemy.engine import Connection

from dbos_orm._dialects import Dialect
from dbos_orm.models import Instant, Queue, Schedule


class StoredSchedule(NamedTuple):
    """The row of a schedule, its context still encoded."""

    name: str
    workflow_name: str
    class_name: str | None
    config_name: str | None
    expression: str | None
    trigger: str | None
    timezone: str
    queue: str | None
    context: str | None
    serializer: str
    catch_up: str
    declared: bool
    paused: bool
    next_fire_at: datetime | None
    last_fire_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Upcoming(NamedTuple):
    """A schedule that is due in ``seconds``, or (negative) was due."""

    schedule: StoredSchedule
    seconds: float


_COLUMNS: Final = [getattr(Schedule, name) for name in StoredSchedule._fields]
_MICROSECONDS: Final = 1_000_000


def present(connection: Connection, dialect: Dialect) -> datetime:
    """The current instant by the clock that schedules are compared with."""
    found: datetime = connection.execute(select(_present(dialect))).scalar_one()
    return found


def find(
    connection: Connection, application: str, names: Sequence[str] | None = None, *, lock: bool = False
) -> list[StoredSchedule]:
    """The schedules of these names, or all, by name; with ``lock`` nobody else changes them in this transaction."""
    statement = select(*_COLUMNS).where(Schedule.application == application).order_by(Schedule.name)
    if names is not None:
        statement = statement.where(Schedule.name.in_(names))
    if lock:
        statement = statement.with_for_update()
    return [_stored(row) for row in connection.execute(statement)]


def find_upcoming(
    connection: Connection, dialect: Dialect, application: str, *, seconds: float
) -> tuple[datetime, list[Upcoming]]:
    """The present, and the schedules that are due by now or within so many seconds, the first one first."""
    now = dialect.now()
    horizon = dialect.plus_microseconds(now, literal(round(seconds * _MICROSECONDS)))
    due = (
        select(dialect.seconds_until(Schedule.next_fire_at).label("seconds"), *_COLUMNS)
        .where(Schedule.application == application, ~Schedule.paused, Schedule.next_fire_at <= horizon)
        .order_by(Schedule.next_fire_at, Schedule.name)
        .subquery("due")
    )
    # One row also where none is due: the present is wanted in any case.
    facts = select(_present(dialect)).subquery("facts")
    rows = connection.execute(select(facts.c.present, due).select_from(facts.outerjoin(due, literal(True)))).all()
    upcoming = [Upcoming(StoredSchedule._make(row[2:]), float(row[1])) for row in rows if row.name is not None]
    return rows[0].present, sorted(upcoming, key=lambda one: (one.seconds, one.schedule.name))


def lock_due(
    connection: Connection, dialect: Dialect, application: str, names: Sequence[str]
) -> tuple[datetime, list[StoredSchedule]]:
    """The present, and those of these schedules that are due and that no other process is about to start."""
    statement = (
        select(*_COLUMNS)
        .where(
            Schedule.application == application,
            Schedule.name.in_(names),
            ~Schedule.paused,
            Schedule.next_fire_at <= dialect.now(),
        )
        .order_by(Schedule.name)
        .with_for_update(skip_locked=True)
    )
    found = [_stored(row) for row in connection.execute(statement)]
    # After the locks: what is due by it was due for the statement.
    return present(connection, dialect), found


def advance(
    connection: Connection,
    dialect: Dialect,
    application: str,
    name: str,
    *,
    slot: datetime,
    next_slot: datetime | None,
    fired: datetime | None,
) -> bool:
    """Move a schedule from ``slot`` to the next one; False if it is not at ``slot`` any more.

    Whoever moves it inserts the runs of what lies between, in the same transaction. ``fired``: the last of them.
    """
    values: dict[str, Any] = {"next_fire_at": next_slot, "updated_at": dialect.now()}
    if fired is not None:
        values["last_fire_at"] = fired
    statement = (
        update(Schedule)
        .where(
            Schedule.application == application,
            Schedule.name == name,
            Schedule.next_fire_at == slot,
            ~Schedule.paused,
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return connection.execute(statement).rowcount == 1


def insert(connection: Connection, dialect: Dialect, application: str, name: str, values: Mapping[str, Any]) -> bool:
    """Add a schedule; False if there is one of this name."""
    statement = dialect.insert(Schedule.__table__).values(application=application, name=name, **values)
    returning = statement.on_conflict_do_nothing().returning(Schedule.__table__.c.name)
    return connection.execute(returning).one_or_none() is not None


def change(connection: Connection, dialect: Dialect, application: str, name: str, values: Mapping[str, Any]) -> bool:
    """Change a schedule; False if there is none of this name."""
    statement = (
        update(Schedule)
        .where(Schedule.application == application, Schedule.name == name)
        .values(**values, updated_at=dialect.now())
        .execution_options(synchronize_session=False)
    )
    return connection.execute(statement).rowcount == 1


def remove(connection: Connection, application: str, name: str) -> bool:
    """Delete a schedule; False if there is none of this name."""
    statement = delete(Schedule).where(Schedule.application == application, Schedule.name == name)
    return connection.execute(statement.execution_options(synchronize_session=False)).rowcount == 1


def known_queues(connection: Connection, application: str) -> dict[str, bool]:
    """The queues that have a row, and whether each is partitioned."""
    rows = connection.execute(select(Queue.name, Queue.partitioned).where(Queue.application == application))
    return {row.name: row.partitioned for row in rows}


def _present(dialect: Dialect) -> Label[datetime]:
    # Typed: it comes back in UTC, whatever the time zone of the session, and as an instant from the text of SQLite.
    return type_coerce(dialect.now(), Instant()).label("present")


def _stored(row: Row[Any]) -> StoredSchedule:
    return StoredSchedule._make(row)
