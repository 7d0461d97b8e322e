"""The rows of queues: what code declares, and what is changed at run time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from dbos_orm._clock import Clock
from dbos_orm._dialects import dialect_of
from dbos_orm._queue_settings import QueueSettings, RateLimit, queue_settings
from dbos_orm._store import queues
from dbos_orm._store.queue_rows import lock_queue
from dbos_orm.config import Config
from dbos_orm.errors import ConfigurationError
from dbos_orm.models import Queue, WorkflowStatus
from tests.databases import TestDatabase
from tests.processes import eventually


@pytest.fixture
def engine(database: TestDatabase) -> Engine:
    return database.make_engine()


def declare(engine: Engine, *settings: QueueSettings) -> list[str]:
    dialect = dialect_of(engine, Clock(), Config())
    with engine.begin() as connection:
        return [f"{one.queue}: {one}" for one in queues.declare(connection, dialect, "shop", settings)]


def rows(engine: Engine) -> list[Queue]:
    with Session(engine, expire_on_commit=False) as session:
        return list(session.scalars(select(Queue).order_by(Queue.name)))


def test_a_declared_queue_has_a_row_with_its_limits(engine: Engine) -> None:
    rate = RateLimit(limit=100, period=0.25)
    mails = queue_settings("mails", concurrency=8, worker_concurrency=2, rate_limit=rate, partitioned=True)

    assert declare(engine, mails, queue_settings("books")) == []

    books, found = rows(engine)
    assert (books.concurrency, books.rate_period, books.partitioned, books.paused) == (None, None, False, False)
    assert (found.concurrency, found.worker_concurrency, found.rate_limit) == (8, 2, 100)
    assert (found.rate_period, found.partitioned) == (timedelta(seconds=0.25), True)


def test_declaring_nothing_does_nothing(engine: Engine) -> None:
    assert declare(engine) == []
    assert rows(engine) == []


def test_declaring_again_changes_nothing_and_finds_no_difference(engine: Engine) -> None:
    settings = queue_settings("mails", concurrency=8, rate_limit=RateLimit(limit=3, period=1))
    declare(engine, settings)

    assert declare(engine, settings) == []


def test_what_was_changed_at_run_time_stays_and_is_told(engine: Engine) -> None:
    settings = queue_settings("mails", concurrency=8)
    declare(engine, settings)
    with engine.begin() as connection:
        connection.execute(update(Queue).values(concurrency=3, paused=True))

    assert declare(engine, settings) == ["mails: concurrency is 3, declared is 8"]

    [row] = rows(engine)
    assert (row.concurrency, row.paused) == (3, True)


def test_on_conflict_update_gives_a_row_the_limits_of_the_code_and_leaves_it_paused(engine: Engine) -> None:
    declare(engine, queue_settings("mails", concurrency=8, rate_limit=RateLimit(3, 1)), queue_settings("books"))
    with engine.begin() as connection:
        connection.execute(update(Queue).values(paused=True))

    told = declare(engine, queue_settings("mails", worker_concurrency=2, on_conflict="update"))

    books, mails = rows(engine)
    assert told[0] == "mails: concurrency is 8, declared is None"
    assert (mails.concurrency, mails.worker_concurrency, mails.rate_limit, mails.rate_period) == (None, 2, None, None)
    assert mails.paused
    assert books.updated_at == books.created_at or books.updated_at < mails.updated_at


def test_partitions_are_not_forced_on_workflows_without_a_key(engine: Engine) -> None:
    declare(engine, queue_settings("mails"))
    with Session(engine) as session, session.begin():
        session.add(WorkflowStatus(workflow_id="w", application="shop", name="send", queue="mails"))

    with pytest.raises(ConfigurationError, match="without a partition key are in queue 'mails'"):
        declare(engine, queue_settings("mails", partitioned=True, on_conflict="update"))

    [row] = rows(engine)
    assert not row.partitioned


def test_queues_of_another_application_are_left_alone(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.add(Queue(application="bank", name="mails", concurrency=1))

    declare(engine, queue_settings("mails", concurrency=8, on_conflict="update"))

    with Session(engine) as session:
        found = session.execute(select(Queue.application, Queue.concurrency).order_by(Queue.application)).all()
    assert [tuple(row) for row in found] == [("bank", 1), ("shop", 8)]


def test_a_process_that_was_stopped_with_a_queue_locked_loses_it_after_a_lease(
    postgresql_database: TestDatabase,
) -> None:
    engine = postgresql_database.make_engine()
    declare(engine, queue_settings("mails", concurrency=1))
    dialect = dialect_of(engine, Clock(), Config(lease=0.4, heartbeat=0.1))

    def is_locked_here() -> bool:
        with engine.begin() as other:
            return lock_queue(other, dialect, "shop", "mails") is not None

    with engine.connect() as stopped:
        assert lock_queue(stopped, dialect, "shop", "mails") is not None
        assert not is_locked_here()
        eventually(is_locked_here)
        with pytest.raises(DBAPIError):
            stopped.exec_driver_sql("SELECT 1")
        stopped.invalidate()
