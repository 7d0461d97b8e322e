"""Starts that wait in a queue: what is stored of them, and which of them are refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Queue, RateLimit, WorkflowState, WorkflowStatus
from dbos_orm._store.entries import INTERNAL_QUEUE
from dbos_orm.errors import ConfigurationError, ConflictingWorkflowError, QueueNotFoundError
from tests.databases import TestDatabase
from tests.integration.queued import make_queue, row_of
from tests.integration.scopes import SCOPES
from tests.integration.shop import count_of, launched


def test_a_queue_says_what_was_declared_of_it() -> None:
    dbos = DBOS(name="shop")
    queue = dbos.queue("mails", concurrency=8, worker_concurrency=2, rate_limit=RateLimit(100, 60), partitioned=True)
    assert (queue.name, queue.concurrency, queue.worker_concurrency) == ("mails", 8, 2)
    assert (queue.rate_limit, queue.partitioned) == (RateLimit(100, 60), True)
    assert repr(dbos.queue("books")) == "<Queue 'books' of 'shop'>"
    assert "concurrency=8, worker_concurrency=2, rate_limit=RateLimit(limit=100, period=60.0)" in repr(queue)
    assert dbos.queue("books") == dbos.queue("books") != DBOS(name="bank").queue("books")
    with pytest.raises(ConfigurationError, match="declare it once"):
        dbos.queue("mails", concurrency=9)


def test_a_queued_start_is_enqueued_with_its_place(starter: DBOS, database: TestDatabase) -> None:
    queue = starter.queue("orders", concurrency=1)

    @starter.workflow
    def work(number: int) -> int:
        return number

    handle = work.options(queue=queue, priority=-3, deduplication_id="d", timeout=60).start(7)
    row = row_of(database, handle.workflow_id)
    assert (row.status, row.queue, row.priority, row.deduplication_id) == (WorkflowState.ENQUEUED, "orders", -3, "d")
    assert (row.owner_token, row.executor_id, row.deadline, row.started_at) == (None, None, None, None)
    assert (row.timeout, row.delay_until) == (timedelta(seconds=60), None)
    assert row.enqueued_at is not None
    info = handle.describe()
    assert (info.queue, info.priority, info.partition_key, info.deduplication_id) == ("orders", -3, None, "d")
    assert info.delay_until is None
    assert handle.created


def test_the_decorators_queue_is_the_default_of_its_starts(starter: DBOS, database: TestDatabase) -> None:
    starter.queue("other")

    @starter.workflow(queue=starter.queue("orders"))
    def work() -> None: ...

    @starter.workflow(queue="orders", name="named")
    def named() -> None: ...

    assert work.start().describe().queue == "orders"
    assert starter.named("named").options(priority=2).start().describe().priority == 2
    assert work.options(queue="other").start().describe().queue == "other"
    with launched(database) as dbos:

        @dbos.workflow(queue=dbos.queue("orders"))
        def called() -> None: ...

        with pytest.raises(ConfigurationError, match="runs here and now; start it"):
            called()


def test_a_launched_process_leaves_a_queued_start_to_the_queue(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def work() -> None: ...

    make_queue(database, "paused", paused=True)
    handle = work.options(queue="paused").start()
    assert row_of(database, handle.workflow_id).owner_token is None
    assert handle.status() is WorkflowState.ENQUEUED


def test_an_unknown_queue_is_refused_until_somebody_has_made_it(starter: DBOS, database: TestDatabase) -> None:
    starter.queue("declared")
    make_queue(database, "mine")
    make_queue(database, "late", application="bank")

    @starter.workflow
    def work() -> None: ...

    with pytest.raises(QueueNotFoundError) as caught:
        work.options(queue="late").start()
    assert (caught.value.queue, caught.value.known) == ("late", ["declared", "mine"])
    assert count_of(database, WorkflowStatus) == 0
    make_queue(database, "late")
    assert work.options(queue="late").start().status() is WorkflowState.ENQUEUED


@pytest.mark.parametrize("stored", [None, True, False])
def test_a_partition_key_is_for_partitioned_queues_and_the_row_counts(
    starter: DBOS, database: TestDatabase, stored: bool | None
) -> None:
    starter.queue("orders", partitioned=stored is None)
    if stored is not None:
        make_queue(database, "orders", partitioned=stored)

    @starter.workflow(queue="orders")
    def work() -> None: ...

    right, wrong = work.options(partition_key="acme"), work
    if stored is False:
        right, wrong = wrong, right
    with pytest.raises(ConfigurationError, match=r"partition_key is .*queue 'orders' is"):
        wrong.start()
    right.start()
    assert count_of(database, WorkflowStatus, partition_key=None if stored is False else "acme") == 1


def test_a_known_id_in_another_queue_is_a_conflict(starter: DBOS) -> None:
    starter.queue("orders")
    starter.queue("other")

    @starter.workflow
    def work() -> None: ...

    named = work.options(workflow_id="w")
    named.options(queue="orders").start()
    assert not named.options(queue="orders").start().created
    assert not named.start().created
    with pytest.raises(ConflictingWorkflowError) as caught:
        named.options(queue="other").start()
    assert (caught.value.field, caught.value.recorded, caught.value.given) == ("queue", "orders", "other")


def test_a_delayed_start_waits_until_its_instant(starter: DBOS, database: TestDatabase) -> None:
    starter.queue("orders")

    @starter.workflow
    def work() -> None: ...

    for delayed, queue in (
        (work.options(queue="orders", delay=60), "orders"),
        (work.options(delay=60), INTERNAL_QUEUE),
    ):
        row = row_of(database, delayed.start().workflow_id)
        assert (row.status, row.queue, row.enqueued_at) == (WorkflowState.DELAYED, queue, None)
        assert row.delay_until is not None
        assert abs(row.delay_until - row.created_at - timedelta(seconds=60)) < timedelta(seconds=1)
    assert work.options(delay=0).start().status() is WorkflowState.ENQUEUED


def test_children_wait_in_queues_too(dbos: DBOS, database: TestDatabase) -> None:
    make_queue(database, "paused", paused=True)

    @dbos.workflow
    def child(number: int) -> int:
        return number

    @dbos.workflow
    def parent() -> list[Any]:
        handle = child.options(queue="paused", priority=4).start(1)
        with pytest.raises(QueueNotFoundError):
            child.options(queue="missing").start(2)
        return [handle.workflow_id, handle.status()]

    assert parent.options(workflow_id="p")() == ["p-1", WorkflowState.ENQUEUED]
    row = row_of(database, "p-1")
    assert (row.queue, row.priority, row.parent_id, row.parent_step) == ("paused", 4, "p", "1")
    assert isinstance(dbos.handle("p").steps()[1].error, QueueNotFoundError)


@SCOPES
def test_a_start_in_a_transaction_of_the_callers_has_all_options(
    starter: DBOS, database: TestDatabase, scope_of: Any
) -> None:
    @starter.workflow
    def work() -> None: ...

    make_queue(database, "orders", partitioned=True)
    with scope_of(database) as scope:
        placed = work.options(queue="orders", partition_key="acme", priority=2, deduplication_id="d", delay=60)
        handle = placed.start_in(scope)
        with pytest.raises(QueueNotFoundError):
            work.options(queue="missing").start_in(scope)
        scope.commit()
    row = row_of(database, handle.workflow_id)
    assert (row.status, row.queue, row.partition_key, row.priority) == (WorkflowState.DELAYED, "orders", "acme", 2)
    assert row.deduplication_id == "d"


def test_an_unbound_application_finds_queues_in_the_callers_database(database: TestDatabase) -> None:
    dbos = DBOS(name="shop")

    @dbos.workflow
    def work() -> None: ...

    make_queue(database, "orders")
    with Session(database.make_engine()) as session, session.begin():
        queued = work.options(queue="orders").start_in(session)
    assert row_of(database, queued.workflow_id).queue == "orders"


@SCOPES
def test_the_commit_says_once_for_each_queue_and_workflow_that_something_waits(
    dbos: DBOS, database: TestDatabase, scope_of: Any
) -> None:
    make_queue(database, "orders")
    make_queue(database, "mails")
    heard: list[tuple[str, str]] = []

    @dbos.workflow(name="work")
    def work() -> None: ...

    @dbos.workflow(name="mail")
    def mail() -> None: ...

    def hear(queue: str, name: str, is_expected: bool) -> bool:
        heard.append((queue, name))
        return True

    dbos._runtime.bound("test").hints.dispatcher = hear
    with scope_of(database) as scope:
        for _ in range(2):
            work.options(queue="orders").start_in(scope)
        mail.options(queue="mails").start_in(scope)
        assert heard == []
        scope.commit()
        assert sorted(set(heard)) == [("mails", "mail"), ("orders", "work")]
        assert len(heard) == 2
        heard.clear()
        scope.commit()
        assert heard == []


async def test_coroutines_start_in_queues(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    queue = async_dbos.queue("orders", partitioned=True)
    assert async_dbos.sync.queue("orders", partitioned=True) == queue
    assert isinstance(queue, Queue)

    @async_dbos.workflow(queue=queue)
    async def work(number: int) -> int:
        return number

    with pytest.raises(ConfigurationError, match="partition_key"):
        await work.start(1)
    handle = await work.options(partition_key="acme", delay=600).start(1)
    assert await handle.status() is WorkflowState.DELAYED
    with pytest.raises(ConfigurationError, match="start it"):
        await work(1)
