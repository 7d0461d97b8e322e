"""The one statement by which a process learns, every second, what it must know about its application."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Integer, Select, Text, bindparam, case, cast, exists, func, literal_column, select

from dbos_orm._dialects import AnyConnection, Dialect
from dbos_orm._store.executors import ObservedExecutor
from dbos_orm.models import Executor, Queue, Schedule, WorkflowStatus

_STATUS: Final = WorkflowStatus.__table__
_ENQUEUED: Final[ColumnElement[str]] = literal_column("'ENQUEUED'")


class ObservedQueue(NamedTuple):
    """The row of a queue. ``has_limits``: of all processes together, so that its row is locked for a claim."""

    name: str
    worker_concurrency: int | None
    partitioned: bool
    has_limits: bool
    paused: bool


class Overview(NamedTuple):
    """What a process needs to know about its application.

    ``waiting``: the (queue, workflow name) of everything that is ENQUEUED. ``is_abandoned``: some run belongs to an
    executor that is dead or gone. ``due_in``: seconds until the next delayed workflow is due, and
    ``fires_in`` until the next schedule; negative when that has passed, None if there is none.
    """

    others: list[ObservedExecutor]
    waiting: list[tuple[str, str]]
    queues: list[ObservedQueue]
    is_abandoned: bool
    due_in: float | None
    fires_in: float | None


def observe(connection: AnyConnection, dialect: Dialect, application: str, executor_id: str) -> Overview:
    """Look at the whole application, from its process ``executor_id``."""
    statement = dialect.prepared("overview", lambda: _overview(dialect))
    row = statement.execute(connection, {"application": application})[0]
    executors = [_executor(*each) for each in _rows(row[0])]
    return Overview(
        [executor for executor in executors if executor.executor_id != executor_id],
        [(queue, name) for queue, name in _rows(row[1])],
        [ObservedQueue(*each[:2], *map(bool, each[2:])) for each in _rows(row[2])],
        bool(row[3]),
        row[4],
        row[5],
    )


def _executor(executor_id: str, heartbeat: int, lease: int, *identity: Any) -> ObservedExecutor:
    return ObservedExecutor(executor_id, heartbeat, timedelta(microseconds=lease), *identity)


def _rows(text: str | None) -> list[list[Any]]:
    return [] if text is None else json.loads(text)


def _application() -> ColumnElement[str]:
    return cast(bindparam("application", type_=Text()), Text)


def _overview(dialect: Dialect) -> Select[Any]:
    application = _application()
    executors = select(
        dialect.json_rows(
            [
                Executor.executor_id,
                Executor.heartbeat,
                Executor.lease,
                Executor.boot_id,
                Executor.pid_namespace,
                Executor.pid,
                Executor.process_started,
            ]
        )
    ).where(Executor.application == application, Executor.expired_at.is_(None))
    waiting = _waiting()
    pairs = select(dialect.json_rows([waiting.c.queue, waiting.c.name])).where(waiting.c.name.is_not(None))
    has_limits = Queue.concurrency.is_not(None) | Queue.rate_limit.is_not(None) | Queue.partitioned
    queues = select(
        dialect.json_rows(
            [
                Queue.name,
                Queue.worker_concurrency,
                *(_flag(each) for each in (Queue.partitioned, has_limits, Queue.paused)),
            ]
        )
    ).where(Queue.application == application)
    is_living = exists().where(Executor.executor_id == _STATUS.c.executor_id, Executor.expired_at.is_(None))
    abandoned = exists().where(
        _STATUS.c.application == application,
        _STATUS.c.status == literal_column("'PENDING'"),
        _STATUS.c.executor_id.is_not(None),
        ~is_living,
    )
    due = (
        select(_STATUS.c.delay_until)
        .where(_STATUS.c.application == application, _STATUS.c.status == literal_column("'DELAYED'"))
        .order_by(_STATUS.c.delay_until)
        .limit(literal_column("1"))
    )
    fires = select(func.min(Schedule.next_fire_at)).where(Schedule.application == application, ~Schedule.paused)
    return select(
        executors.scalar_subquery(),
        pairs.scalar_subquery(),
        queues.scalar_subquery(),
        abandoned,
        dialect.seconds_until(due.scalar_subquery()),
        dialect.seconds_until(fires.scalar_subquery()),
    )


def _flag(condition: Any) -> ColumnElement[int]:
    return case((condition, literal_column("1", Integer)), else_=literal_column("0", Integer))


def _waiting() -> Any:
    """Every (queue, name) that waits, one look at the index of claims for each, however many rows wait.

    A row with the name None leads from one queue to the next.
    """
    one: ColumnElement[int] = literal_column("1")
    nothing = literal_column("''", Text)
    own = (_STATUS.c.status == _ENQUEUED, _STATUS.c.application == _application())

    def next_queue(*beyond: ColumnElement[bool]) -> ColumnElement[Any]:
        queue = _STATUS.c.queue
        return select(queue).where(*own, *beyond).order_by(queue).limit(one).scalar_subquery()

    waiting = select(
        next_queue(_STATUS.c.queue.is_not(None)).label("queue"), cast(literal_column("NULL"), Text).label("name")
    )
    found = waiting.cte("waiting", recursive=True)
    next_name = (
        select(_STATUS.c.name)
        .where(*own, _STATUS.c.queue == found.c.queue, _STATUS.c.name > func.coalesce(found.c.name, nothing))
        .order_by(_STATUS.c.name)
        .limit(one)
        .scalar_subquery()
    )
    queue = case((next_name.is_not(None), found.c.queue), else_=next_queue(_STATUS.c.queue > found.c.queue))
    return found.union_all(select(queue, next_name).where(found.c.queue.is_not(None)))
