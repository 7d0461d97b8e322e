"""At most one live workflow of a queue has a deduplication ID: who comes second gets an error, or that one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, WorkflowState, WorkflowStatus
from dbos_orm.errors import ConflictingWorkflowError, DeduplicationError
from tests.databases import TestDatabase
from tests.integration.queued import make_queue
from tests.integration.scopes import SCOPES
from tests.integration.shop import Interruption, count_of
from tests.processes import PATIENCE, eventually


def register(dbos: DBOS) -> Any:
    dbos.queue("orders")
    dbos.queue("other")

    @dbos.workflow(name="work")
    def work(number: int) -> int:
        return number

    return work.options(queue="orders", deduplication_id="d")


def test_a_second_start_is_refused_while_the_first_one_is_live(starter: DBOS, database: TestDatabase) -> None:
    work = register(starter)
    first = work.start(1)
    with pytest.raises(DeduplicationError) as caught:
        work.start(2)
    error = caught.value
    assert (error.queue, error.deduplication_id, error.workflow_id) == ("orders", "d", first.workflow_id)
    assert count_of(database, WorkflowStatus) == 1
    assert work.options(queue="other").start(3).created
    assert work.options(deduplication_id="e").start(4).created
    first.cancel()
    assert work.start(5).created


def test_a_second_start_may_be_given_the_first_one(starter: DBOS, database: TestDatabase) -> None:
    work = register(starter).options(on_duplicate="return")
    first, second = work.start(1), work.start(2)
    assert (first.created, second.created) == (True, False)
    assert second.workflow_id == first.workflow_id
    assert count_of(database, WorkflowStatus) == 1


def test_only_the_same_workflow_is_given(starter: DBOS) -> None:
    register(starter).start(1)

    @starter.workflow
    def other() -> None: ...

    with pytest.raises(ConflictingWorkflowError) as caught:
        other.options(queue="orders", deduplication_id="d", on_duplicate="return").start()
    assert caught.value.field == "name"


def test_a_known_workflow_id_counts_before_the_deduplication_id(starter: DBOS) -> None:
    work = register(starter).options(workflow_id="w")
    assert work.start(1).created
    assert not work.start(1).created


def test_of_many_threads_one_starts_it(starter: DBOS, database: TestDatabase) -> None:
    work = register(starter).options(on_duplicate="return")
    together, found = threading.Barrier(8), list[Any]()

    def start() -> None:
        together.wait(PATIENCE)
        found.append(work.start(1))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({handle.workflow_id for handle in found}) == 1
    assert [handle.created for handle in found].count(True) == 1


@SCOPES
def test_a_start_in_a_transaction_of_the_callers_meets_the_first_one(
    starter: DBOS, database: TestDatabase, scope_of: Any
) -> None:
    work = register(starter)
    first = work.start(1)
    with scope_of(database) as scope:
        with pytest.raises(DeduplicationError):
            work.start_in(scope, 2)
        handle = work.options(on_duplicate="return").start_in(scope, 3)
        assert (handle.workflow_id, handle.created) == (first.workflow_id, False)
        assert handle.status() is WorkflowState.ENQUEUED
        work.options(deduplication_id="e").start_in(scope, 4)
        with pytest.raises(DeduplicationError):
            work.options(deduplication_id="e").start_in(scope, 4)
        scope.commit()
    assert count_of(database, WorkflowStatus) == 2


def test_a_parent_records_the_child_that_it_got(dbos: DBOS, database: TestDatabase) -> None:
    child = register(dbos)
    interrupted: list[Any] = []

    @dbos.workflow
    def parent() -> list[Any]:
        fresh = child.options(deduplication_id="fresh").start(0)
        known = child.options(on_duplicate="return").start(1)
        try:
            child.start(2)
            refused = ""
        except DeduplicationError as error:
            refused = error.workflow_id or ""
        found = [fresh.workflow_id, fresh.created, known.workflow_id, known.created, refused]
        interrupted.append(found)
        if len(interrupted) == 1:
            # What a replay finds there now must not matter.
            with Session(database.make_engine()) as session, session.begin():
                session.execute(update(WorkflowStatus).values(deduplication_id=None))
            raise Interruption
        return found

    make_queue(database, "orders", paused=True)  # so that the first one stays live
    first = child.start(1)
    found = parent.options(workflow_id="p").start().result(timeout=PATIENCE)
    assert found == ["p-1", True, first.workflow_id, False, first.workflow_id]
    assert interrupted == [found, found]
    steps = dbos.handle("p").steps()
    assert [step.child_id for step in steps] == ["p-1", first.workflow_id, None]
    assert isinstance(steps[2].error, DeduplicationError)
    assert count_of(database, WorkflowStatus) == 3


def test_a_start_in_a_transactional_step_meets_the_first_one(dbos: DBOS, database: TestDatabase) -> None:
    make_queue(database, "orders", paused=True)
    child = register(dbos)
    first = child.start(1)

    @dbos.transaction
    def order(session: Session) -> list[str]:
        child.options(deduplication_id="e").start(2)
        return [child.options(on_duplicate="return").start(3).workflow_id]

    @dbos.transaction
    def order_twice(session: Session) -> None:
        child.options(deduplication_id="f").start(2)
        child.start(3)

    @dbos.workflow
    def parent() -> list[str]:
        with pytest.raises(DeduplicationError):
            order_twice()
        return order()

    assert parent() == [first.workflow_id]
    assert count_of(database, WorkflowStatus, deduplication_id="f") == 0
    assert count_of(database, WorkflowStatus, deduplication_id="e") == 1


async def test_coroutines_deduplicate(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    async_dbos.queue("orders", concurrency=1)

    @async_dbos.workflow(queue="orders")
    async def work(number: int) -> int:
        return number

    once = work.options(deduplication_id="d", delay=600)

    @async_dbos.workflow
    async def parent() -> list[Any]:
        first = await once.start(1)
        second = await once.options(on_duplicate="return").start(2)
        try:
            await once.start(3)
        except DeduplicationError as error:
            return [first.workflow_id, second.workflow_id, second.created, error.workflow_id]
        return []

    assert await parent.options(workflow_id="p")() == ["p-1", "p-1", False, "p-1"]
    with pytest.raises(DeduplicationError):
        await once.start(1)


def test_whoever_waits_for_one_that_ends_meanwhile_starts_it(starter: DBOS, database: TestDatabase) -> None:
    work = register(starter)
    first = work.start(1)
    with Session(database.make_engine()) as session:
        session.execute(
            update(WorkflowStatus)
            .where(WorkflowStatus.workflow_id == first.workflow_id)
            .values(status=WorkflowState.SUCCESS)
        )
        second: list[Any] = []
        thread = threading.Thread(target=lambda: second.append(work.options(on_duplicate="return").start(2)))
        if database.backend == "postgresql":
            thread.start()
        session.commit()
    if database.backend != "postgresql":
        thread.start()
    thread.join()
    # Either answer is right: it was still live when somebody looked, or it was not.
    eventually(lambda: bool(second))
    assert second[0].created == (second[0].workflow_id != first.workflow_id)
