"""``dbos.queues``: looking at queues, and changing them while they are in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, QueueInfo, RateLimit
from dbos_orm.errors import (
    ConfigurationError,
    NotBoundError,
    NotInStepError,
    QueueNotEmptyError,
    QueueNotFoundError,
    SessionMisuseError,
)
from dbos_orm.models import Queue, RateStart, WorkflowStatus
from tests.databases import TestDatabase
from tests.integration.shop import count_of
from tests.processes import eventually

MINUTE = timedelta(minutes=1)


def add(database: TestDatabase, *rows: object) -> None:
    with Session(database.make_engine()) as session, session.begin():
        session.add_all(rows)


def workflow(number: int, status: str, **columns: Any) -> WorkflowStatus:
    values = {
        "workflow_id": f"w-{number}",
        "application": "shop",
        "name": "nobody's",
        "queue": "mails",
        "status": status,
    }
    return WorkflowStatus(**values | columns)


@pytest.fixture
def bound(database: TestDatabase) -> DBOS:
    """An application that declares two queues, bound and not launched."""
    dbos = DBOS(database.make_engine(), name="shop")
    dbos.queue("mails", concurrency=8, worker_concurrency=2, rate_limit=RateLimit(limit=100, period=60))
    dbos.queue("orders", partitioned=True)
    return dbos


def test_a_queue_tells_its_limits_and_what_is_in_it(bound: DBOS, database: TestDatabase) -> None:
    long_ago = datetime.now(UTC) - MINUTE
    add(
        database,
        workflow(1, "ENQUEUED", enqueued_at=long_ago),
        workflow(2, "DELAYED"),
        workflow(3, "DELAYED", error='"unreadable"'),
        *(workflow(number, "PENDING") for number in (4, 5)),
        workflow(6, "SUCCESS"),
    )

    mails = bound.queues.get("mails")

    assert mails == QueueInfo(
        name="mails",
        concurrency=8,
        worker_concurrency=2,
        rate_limit=RateLimit(100, MINUTE),
        partitioned=False,
        paused=False,
        depth=1,
        delayed=1,
        running=2,
        held=1,
        lag=mails.lag,
    )
    assert mails.lag is not None
    assert MINUTE <= mails.lag < 2 * MINUTE


def test_all_queues_are_listed_by_name(bound: DBOS, database: TestDatabase) -> None:
    add(database, Queue(application="shop", name="books"), Queue(application="bank", name="accounts"))

    assert [one.name for one in bound.queues.list()] == ["books", "mails", "orders"]
    assert [one.name for one in DBOS(database.make_engine(), name="empty").queues.list()] == []


def test_partitions_are_told(bound: DBOS, database: TestDatabase) -> None:
    add(
        database,
        workflow(1, "PENDING", queue="orders", partition_key="de"),
        workflow(2, "ENQUEUED", queue="orders", partition_key="at"),
        workflow(3, "ENQUEUED", queue="orders", partition_key="de"),
    )

    found = bound.queues.partitions("orders")

    assert [(one.partition_key, one.depth, one.running) for one in found] == [("at", 1, 0), ("de", 1, 1)]
    assert all(one.lag is not None for one in found)


def test_a_limit_is_changed_and_the_others_stay(bound: DBOS) -> None:
    bound.queues.set("mails", concurrency=20)
    assert bound.queues.get("mails").concurrency == 20
    bound.queues.set("mails", rate_limit=RateLimit(5, 0.5))
    bound.queues.set("mails", worker_concurrency=None)

    mails = bound.queues.get("mails")

    assert (mails.concurrency, mails.worker_concurrency) == (20, None)
    assert mails.rate_limit == RateLimit(5, timedelta(seconds=0.5))
    bound.queues.set("mails", rate_limit=None, concurrency=None)
    mails = bound.queues.get("mails")
    assert (mails.concurrency, mails.rate_limit) == (None, None)


def test_setting_nothing_changes_nothing(bound: DBOS) -> None:
    before = bound.queues.get("mails")
    bound.queues.set("mails")
    assert bound.queues.get("mails") == before


def test_what_was_changed_stays_over_a_launch(bound: DBOS) -> None:
    bound.queues.set("mails", concurrency=3)
    with bound:
        assert bound.queues.get("mails").concurrency == 3


def test_a_limit_that_contradicts_what_stays_is_refused(bound: DBOS) -> None:
    with pytest.raises(ConfigurationError, match="at most the concurrency of all processes together, 8") as failure:
        bound.queues.set("mails", worker_concurrency=9)
    assert failure.value.field == "worker_concurrency"
    with pytest.raises(ConfigurationError):
        bound.queues.set("mails", concurrency=1)
    bound.queues.set("mails", concurrency=9, worker_concurrency=9)
    assert bound.queues.get("mails").worker_concurrency == 9


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"worker_concurrency": 1.5}, "worker_concurrency"),
        ({"concurrency": 1, "worker_concurrency": 2}, "worker_concurrency"),
        ({"rate_limit": (0, 1)}, "rate_limit.limit"),
        ({"rate_limit": 5}, "rate_limit"),
        ({"rate_limit": RateLimit(1, 0)}, "rate_limit.period"),
        ({"partitioned": "yes"}, "partitioned"),
        ({"partitioned": None}, "partitioned"),
        ({"paused": True}, "paused"),
    ],
    ids=str,
)
def test_a_limit_that_cannot_work_is_refused(bound: DBOS, limits: dict[str, Any], field: str) -> None:
    for act in (bound.queues.set, bound.queues.create):
        with pytest.raises(ConfigurationError) as failure:
            act("books" if act == bound.queues.create else "mails", **limits)
        assert failure.value.field == field
    assert [one.name for one in bound.queues.list()] == ["mails", "orders"]


def test_a_queue_is_not_partitioned_while_workflows_without_a_key_are_in_it(
    bound: DBOS, database: TestDatabase
) -> None:
    add(database, workflow(1, "DELAYED"))
    with pytest.raises(ConfigurationError, match="without a partition key are in queue 'mails'"):
        bound.queues.set("mails", partitioned=True)
    bound.queues.set("orders", partitioned=False)
    bound.queues.set("orders", partitioned=True)
    assert bound.queues.get("orders").partitioned


def test_a_queue_is_paused_and_resumed(bound: DBOS) -> None:
    mails = bound.queue("books")
    bound.queues.pause(mails)
    bound.queues.pause("books")
    assert bound.queues.get(mails).paused
    bound.queues.resume(mails)
    assert not bound.queues.get("books").paused


def test_a_queue_is_created_at_run_time(bound: DBOS) -> None:
    for _ in range(2):
        bound.queues.create("books", concurrency=2, rate_limit=RateLimit(1, 1))
    assert bound.queues.get("books").concurrency == 2
    with pytest.raises(ConfigurationError, match="concurrency is 2, declared is 3"):
        bound.queues.create("books", concurrency=3, rate_limit=RateLimit(1, 1))


def test_a_queue_cannot_have_any_name(bound: DBOS) -> None:
    for name in ("", "_dbos_internal", "a\x00b"):
        with pytest.raises(ConfigurationError):
            bound.queues.create(name)


def test_an_empty_queue_is_deleted_with_what_its_rate_limit_counted(bound: DBOS, database: TestDatabase) -> None:
    bound.queues.create("books", rate_limit=RateLimit(1, 1))
    add(
        database, RateStart(workflow_id="w", owner_token="t", application="shop", queue="books"), workflow(1, "SUCCESS")
    )

    bound.queues.delete("books")

    assert count_of(database, Queue, name="books") == count_of(database, RateStart) == 0
    with pytest.raises(QueueNotFoundError):
        bound.queues.get("books")


@pytest.mark.parametrize("status", ["ENQUEUED", "DELAYED", "PENDING"])
def test_a_queue_with_live_workflows_is_not_deleted(bound: DBOS, database: TestDatabase, status: str) -> None:
    add(database, workflow(1, status), workflow(2, status))
    with pytest.raises(QueueNotEmptyError, match="holds 2 live workflows") as failure:
        bound.queues.delete("mails")
    assert (failure.value.queue, failure.value.live) == ("mails", 2)
    assert bound.queues.get("mails").concurrency == 8


@pytest.mark.parametrize("verb", ["get", "set", "pause", "resume", "delete", "partitions"])
def test_a_queue_that_nobody_knows_is_refused(bound: DBOS, verb: str) -> None:
    with pytest.raises(QueueNotFoundError, match=r"known: \['mails', 'orders'\]") as failure:
        getattr(bound.queues, verb)("males")
    assert failure.value.queue == "males"


def test_an_application_without_a_database_has_no_queues_yet() -> None:
    with pytest.raises(NotBoundError, match=r"dbos\.queues\.list\(\)"):
        DBOS(name="shop").queues.list()


def test_a_queue_of_another_application_is_refused(bound: DBOS) -> None:
    with pytest.raises(ConfigurationError, match="a queue of application 'shop'"):
        bound.queues.get(DBOS(name="bank").queue("mails"))


@pytest.mark.parametrize("verb", ["list", "get", "set", "create", "pause", "resume", "delete", "partitions"])
def test_the_body_of_a_workflow_is_no_place_for_it(dbos: DBOS, verb: str) -> None:
    arguments = () if verb == "list" else ("mails",)

    @dbos.workflow
    def work() -> None:
        getattr(dbos.queues, verb)(*arguments)

    with pytest.raises(NotInStepError, match=rf"dbos\.queues\.{verb}\(\) was called in the body"):
        work()


def test_a_step_is(dbos: DBOS) -> None:
    @dbos.step
    def slow_down() -> int | None:
        dbos.queues.create("mails")
        dbos.queues.set("mails", concurrency=1)
        return dbos.queues.get("mails").concurrency

    @dbos.workflow
    def work() -> int | None:
        return slow_down()

    assert work() == 1


def test_a_transaction_is_not(dbos: DBOS) -> None:
    @dbos.transaction
    def slow_down(session: Session) -> None:
        dbos.queues.pause("mails")

    with pytest.raises(SessionMisuseError, match=r"dbos\.queues\.pause\(\) in a transaction"):
        slow_down()


async def test_coroutines_have_the_same_verbs(async_dbos: AsyncDBOS) -> None:
    queues = async_dbos.queues
    await queues.create("mails", concurrency=2)
    await queues.set("mails", worker_concurrency=1)
    await queues.pause("mails")
    mails = await queues.get("mails")
    assert (mails.concurrency, mails.worker_concurrency, mails.paused) == (2, 1, True)
    await queues.resume("mails")
    assert await queues.partitions("mails") == []
    assert [one.paused for one in await queues.list()] == [False]
    await queues.delete("mails")
    with pytest.raises(QueueNotFoundError):
        await queues.get("mails")


async def test_the_sync_view_has_them_for_threads(async_dbos: AsyncDBOS) -> None:
    @async_dbos.sync.step
    def look() -> list[str]:
        async_dbos.sync.queues.create("mails")
        return [one.name for one in async_dbos.sync.queues.list()]

    @async_dbos.sync.workflow
    def work() -> list[str]:
        return look()

    assert await asyncio.to_thread(work) == ["mails"]
    with pytest.raises(ConfigurationError):
        async_dbos.sync.queues.list()


def test_a_launched_process_hears_of_a_queue_that_was_changed_or_deleted_elsewhere(
    dbos: DBOS, database: TestDatabase
) -> None:
    @dbos.workflow
    def work() -> None: ...

    other = DBOS(database.make_engine(), name="shop")
    other.queues.create("tenants", partitioned=True)
    work.options(queue="tenants", partition_key="a").start().result()

    other.queues.set("tenants", partitioned=False)
    eventually(lambda: not is_refused(lambda: work.options(queue="tenants").start().result()))
    eventually(lambda: other.queues.get("tenants").running == 0)
    other.queues.delete("tenants")
    eventually(lambda: is_refused(lambda: work.options(queue="tenants").start(), QueueNotFoundError))


def is_refused(start: Callable[[], object], kind: type[Exception] = ConfigurationError) -> bool:
    try:
        start()
    except kind:
        return True
    return False
