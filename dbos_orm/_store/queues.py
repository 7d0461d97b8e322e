"""The rows of queues: what code declares fills in what is missing, and people change it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.engine import Connection

from dbos_orm._dialects import Dialect
from dbos_orm._queue_settings import QueueSettings, RateLimit, require_limits
from dbos_orm._states import LIVE_STATES
from dbos_orm.errors import ConfigurationError, QueueNotEmptyError
from dbos_orm.models import Queue, QueuePartition, RateStart, WorkflowStatus

Limit: TypeAlias = int | timedelta | bool | None

_LIMITS: Final = ("concurrency", "worker_concurrency", "rate_limit", "rate_period", "partitioned")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """A queue as it was when somebody looked: its limits (None is no limit), and what was in it.

    ``depth`` wait for their turn, ``delayed`` for their time; ``running`` were claimed and have not ended; ``held``
    could not be read by the process that claimed them. ``lag`` is for how long the oldest has waited for its turn.
    """

    name: str
    concurrency: int | None
    worker_concurrency: int | None
    rate_limit: RateLimit | None
    partitioned: bool
    paused: bool
    depth: int
    delayed: int
    running: int
    held: int
    lag: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionInfo:
    """A partition of a queue in which something waited or ran when somebody looked."""

    partition_key: str
    depth: int
    running: int
    lag: timedelta | None


_INFO: Final = ("name", "paused", "depth", "delayed", "running", "held", "lag", *_LIMITS)


class Difference(NamedTuple):
    """A limit of a queue that is declared in code, and another one that its row has."""

    queue: str
    field: str
    declared: Limit
    stored: Limit

    def __str__(self) -> str:
        return f"{self.field} is {self.stored!r}, declared is {self.declared!r}"


def declare(
    connection: Connection, dialect: Dialect, application: str, settings: Sequence[QueueSettings]
) -> list[Difference]:
    """Insert the rows of declared queues that are missing; give where other rows differ from the code.

    What was changed at run time stays, except where the code says ``on_conflict="update"``: such a row gets
    the limits of the code, stays paused if it is, and is in the list with what it had before.

    Raises:
        ConfigurationError: a queue that is to be partitioned holds workflows without a partition key.
    """
    if not settings:
        return []
    names = [one.name for one in settings]
    fill_in(connection, dialect, application, settings)
    stored = {
        row.name: row
        for row in connection.execute(
            select(Queue.name, *(getattr(Queue, field) for field in _LIMITS)).where(
                Queue.application == application, Queue.name.in_(names)
            )
        )
    }
    differences = [
        Difference(one.name, field, declared, getattr(stored[one.name], field))
        for one in settings
        for field, declared in _limits(one).items()
        if one.name in stored and getattr(stored[one.name], field) != declared
    ]
    forced = {one.name: one for one in settings if one.on_conflict == "update"}
    for name in sorted({one.queue for one in differences} & forced.keys()):
        _update(connection, dialect, application, name, _limits(forced[name]))
    return differences


def fill_in(connection: Connection, dialect: Dialect, application: str, settings: Sequence[QueueSettings]) -> None:
    """Insert the rows of declared queues that are missing."""
    # In the order of their names: two processes that launch at once must not wait for each other in a circle.
    rows = [
        {"application": application, "name": one.name, **_limits(one)}
        for one in sorted(settings, key=lambda one: one.name)
    ]
    if rows:
        connection.execute(dialect.insert(Queue.__table__).on_conflict_do_nothing(), rows)


def look(connection: Connection, application: str, name: str | None = None) -> list[QueueInfo]:
    """The queues of an application that have a row, in the order of their names, or the one of this name."""
    statement = select(*(getattr(Queue, field).label(field) for field in _INFO))
    statement = statement.where(_is_queue(application, name)).order_by(Queue.name)
    return [_info(row._asdict()) for row in connection.execute(statement)]


def partitions(connection: Connection, application: str, name: str) -> list[PartitionInfo]:
    """The partitions of a queue in which something waits or runs, in the order of their keys."""
    columns = [getattr(QueuePartition, field) for field in PartitionInfo.__dataclass_fields__]
    own = QueuePartition.application == application, QueuePartition.queue == name
    rows = connection.execute(select(*columns).where(*own).order_by(QueuePartition.partition_key))
    return [PartitionInfo(**row._asdict()) for row in rows]


def change(connection: Connection, dialect: Dialect, application: str, name: str, values: Mapping[str, Limit]) -> bool:
    """Give a queue other limits; what is not named stays. False if there is no such queue.

    Raises:
        ConfigurationError: they contradict what stays, or the workflows that are in the queue.
    """
    stored = _locked(connection, application, name)
    if stored is None:
        return False
    then = {**stored, **values}
    require_limits(then["concurrency"], then["worker_concurrency"])
    if values:
        _update(connection, dialect, application, name, values)
    return True


def pause(connection: Connection, dialect: Dialect, application: str, name: str, *, paused: bool) -> bool:
    """Have nothing more claimed from a queue, or go on with it. False if there is no such queue.

    A claim that is under way may still get what it has found.
    """
    if _locked(connection, application, name) is None:
        return False
    connection.execute(
        update(Queue).where(_is_queue(application, name)).values(paused=paused, updated_at=dialect.now())
    )
    return True


def names(connection: Connection, application: str) -> list[str]:
    """The names of every queue of an application that has a row."""
    return list(connection.scalars(select(Queue.name).where(Queue.application == application).order_by(Queue.name)))


def remove(connection: Connection, application: str, name: str) -> None:
    """Delete a queue, with the starts that its rate limit counted.

    Raises:
        QueueNotEmptyError: live workflows are in it.
    """
    if _locked(connection, application, name) is None:
        return
    live = Queue.depth + Queue.delayed + Queue.held + Queue.running
    count = connection.execute(select(live).where(_is_queue(application, name))).scalar_one()
    if count:
        raise QueueNotEmptyError(name, count)
    connection.execute(delete(RateStart).where(RateStart.application == application, RateStart.queue == name))
    connection.execute(delete(Queue).where(_is_queue(application, name)))


def _is_queue(application: str, name: str | None) -> ColumnElement[bool]:
    own = Queue.application == application
    return own if name is None else own & (Queue.name == name)


def _locked(connection: Connection, application: str, name: str) -> dict[str, Any] | None:
    """The limits of a queue, which nobody else changes or claims by until the transaction ends."""
    columns = [getattr(Queue, field) for field in _LIMITS]
    statement = select(*columns).where(_is_queue(application, name)).with_for_update()
    row = connection.execute(statement).one_or_none()
    return None if row is None else row._asdict()


def _update(connection: Connection, dialect: Dialect, application: str, name: str, values: Mapping[str, Limit]) -> None:
    if values.get("partitioned"):
        _require_keys(connection, application, name)
    connection.execute(update(Queue).where(_is_queue(application, name)).values(**values, updated_at=dialect.now()))


def _require_keys(connection: Connection, application: str, name: str) -> None:
    """Raise where workflows without a partition key would stay in the queue for ever."""
    without_key = exists().where(
        WorkflowStatus.application == application,
        WorkflowStatus.queue == name,
        WorkflowStatus.status.in_(sorted(LIVE_STATES)),
        WorkflowStatus.partition_key.is_(None),
    )
    if connection.execute(select(without_key)).scalar_one():
        expected = f"False while workflows without a partition key are in queue {name!r}"
        raise ConfigurationError("partitioned", True, expected, "let them end, or declare a queue of another name")


def _info(row: dict[str, Any]) -> QueueInfo:
    limit, period = row.pop("rate_limit"), row.pop("rate_period")
    return QueueInfo(**row, rate_limit=None if limit is None or period is None else RateLimit(limit, period))


def _limits(settings: QueueSettings) -> dict[str, Limit]:
    period = settings.rate_period
    return {
        "concurrency": settings.concurrency,
        "worker_concurrency": settings.worker_concurrency,
        "rate_limit": settings.rate_limit,
        "rate_period": None if period is None else timedelta(seconds=period),
        "partitioned": settings.partitioned,
    }
