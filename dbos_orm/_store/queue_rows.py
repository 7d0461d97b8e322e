"""The rows of queues, as claims lock and read them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Integer, Select, delete, func, literal_column, select, update

from dbos_orm._dialects import AnyConnection, Dialect
from dbos_orm._store.claim_statement import given, window_begins
from dbos_orm.models import Queue, RateStart, WorkflowStatus

_ENQUEUED: Final[ColumnElement[str]] = literal_column("'ENQUEUED'")
_STATUS: Final = WorkflowStatus.__table__


class Limits(NamedTuple):
    """What a queue's row says while it is locked: None is no limit, ``rate_period`` is in microseconds."""

    concurrency: int | None
    worker_concurrency: int | None
    rate_limit: int | None
    rate_period: int | None
    partitioned: bool
    partition_cursor: str | None
    paused: bool


def lock_queue(connection: AnyConnection, dialect: Dialect, application: str, queue: str) -> Limits | None:
    """Lock the row of a queue until the transaction ends; None if another process has it, or there is none."""
    statement = dialect.prepared("lock_queue", lambda: _lock_queue(dialect))
    for row in statement.execute(connection, {"application": application, "queue": queue}):
        return Limits._make((*row[:4], bool(row[4]), row[5], bool(row[6])))
    return None


def waiting_keys(
    connection: AnyConnection, dialect: Dialect, application: str, queue: str, *, after: str, limit: int
) -> list[str]:
    """Up to ``limit`` partition keys behind ``after`` for which something waits, in their order."""
    statement = dialect.prepared("waiting_keys", _waiting_keys)
    parameters = {"application": application, "queue": queue, "after": after, "limit": limit}
    return [row[0] for row in statement.execute(connection, parameters)]


def note_last_key(connection: AnyConnection, dialect: Dialect, application: str, queue: str, key: str) -> None:
    """Have the next turn begin behind this partition key."""
    own = (Queue.application == given("application"), Queue.name == given("queue"))
    statement = dialect.prepared(
        "partition_cursor",
        lambda: update(Queue).where(*own).values(partition_cursor=given("key")).returning(Queue.name),
    )
    statement.execute(connection, {"application": application, "queue": queue, "key": key})


def seconds_until_start(
    connection: AnyConnection, dialect: Dialect, application: str, queue: str, period: int
) -> float | None:
    """Seconds until the oldest start leaves the window of a rate limit; None if there is none in it."""

    def build() -> Select[Any]:
        ends = dialect.plus_microseconds(func.min(RateStart.started_at), given("period", BigInteger()))
        in_window = RateStart.started_at > window_begins(dialect)
        own = (RateStart.application == given("application"), RateStart.queue == given("queue"))
        return select(dialect.seconds_until(ends)).where(*own, in_window)

    statement = dialect.prepared("seconds_until_start", build)
    parameters = {"application": application, "queue": queue, "period": period, "window": -period}
    found = statement.execute(connection, parameters)[0][0]
    return None if found is None else float(found)


def prune_rate_starts(connection: AnyConnection, dialect: Dialect, application: str, queue: str, period: int) -> None:
    """Forget the starts that no window of this length reaches any more."""

    def build() -> Any:
        own = (RateStart.application == given("application"), RateStart.queue == given("queue"))
        return (
            delete(RateStart)
            .where(*own, RateStart.started_at < window_begins(dialect))
            .returning(RateStart.workflow_id)
        )

    statement = dialect.prepared("prune_rate_starts", build)
    statement.execute(connection, {"application": application, "queue": queue, "window": -2 * period})


def _lock_queue(dialect: Dialect) -> Any:
    return (
        select(
            Queue.concurrency,
            Queue.worker_concurrency,
            Queue.rate_limit,
            Queue.rate_period,
            Queue.partitioned,
            Queue.partition_cursor,
            Queue.paused,
        )
        .where(Queue.application == given("application"), Queue.name == given("queue"), dialect.idle_bound())
        .with_for_update(skip_locked=True)
    )


def _waiting_keys() -> Any:
    def following(key: ColumnElement[Any]) -> ColumnElement[Any]:
        return (
            select(_STATUS.c.partition_key)
            .where(
                _STATUS.c.status == _ENQUEUED,
                _STATUS.c.application == given("application"),
                _STATUS.c.queue == given("queue"),
                _STATUS.c.partition_key.is_not(None),
                _STATUS.c.partition_key > key,
            )
            .order_by(_STATUS.c.partition_key)
            .limit(literal_column("1"))
            .scalar_subquery()
        )

    keys = select(following(given("after")).label("key"), literal_column("1", Integer).label("number")).cte(
        "keys", recursive=True
    )
    is_more = keys.c.key.is_not(None) & (keys.c.number < given("limit", Integer()))
    keys = keys.union_all(select(following(keys.c.key), keys.c.number + literal_column("1")).where(is_more))
    return select(keys.c.key).where(keys.c.key.is_not(None)).order_by(keys.c.number)
