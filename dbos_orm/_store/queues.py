"""The rows of queues: what code declares fills in what is missing, and people change it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple, TypeAlias

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from dbos_orm._dialects import Dialect
from dbos_orm._queue_settings import QueueSettings
from dbos_orm.models import Queue

Limit: TypeAlias = int | timedelta | bool | None

_LIMITS: Final = ("concurrency", "worker_concurrency", "rate_limit", "rate_period", "partitioned")


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
    """
    if not settings:
        return []
    names = [one.name for one in settings]
    table = Queue.__table__
    # In the order of their names: two processes that launch at once must not wait for each other in a circle.
    rows = sorted(
        ({"application": application, "name": one.name, **_limits(one)} for one in settings),
        key=lambda row: str(row["name"]),
    )
    connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)
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
        _change(connection, dialect, application, name, _limits(forced[name]))
    return differences


def _change(connection: Connection, dialect: Dialect, application: str, name: str, values: Mapping[str, Limit]) -> None:
    connection.execute(
        update(Queue)
        .where(Queue.application == application, Queue.name == name)
        .values(**values, updated_at=dialect.now())
        .execution_options(synchronize_session=False)
    )


def _limits(settings: QueueSettings) -> dict[str, Limit]:
    period = settings.rate_period
    return {
        "concurrency": settings.concurrency,
        "worker_concurrency": settings.worker_concurrency,
        "rate_limit": settings.rate_limit,
        "rate_period": None if period is None else timedelta(seconds=period),
        "partitioned": settings.partitioned,
    }
