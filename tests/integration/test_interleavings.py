"""What two actors do at once, held at the very point where one could overtake the other (DESIGN.md, section 5).

The other actor is a second application on the same database, or a plain transaction. The tick of the first
one never comes during a test, so that it learns of nothing but by what it writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from dbos_orm import DBOS, Retry, WorkflowState
from dbos_orm._dialects import Dialect, DirectConnection
from dbos_orm._drivers.committer import Committer
from dbos_orm._flows.effects import Commit, Effect, Write
from dbos_orm._store import checkpoints
from dbos_orm._store.entries import Entry, StepEntry
from dbos_orm.errors import WorkflowCancelled, WorkflowCancelledError
from dbos_orm.models import StepOutput, WorkflowStatus
from tests.databases import TestDatabase
from tests.integration.interleaving import (
    PATIENCE,
    UNAWARE,
    Place,
    bound,
    is_waiting_for_a_lock,
    locked,
    status_of,
)
from tests.integration.shop import Item, count_of, launched, names_of_items
from tests.processes import eventually


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for what is to happen at the same time."""
    with ThreadPoolExecutor(40) as pool:
        yield pool


@contextmanager
def held_before(dbos: DBOS, is_it: Callable[[Effect[Any]], bool], place: Place) -> Iterator[None]:
    """Hold whoever is about to perform a certain effect."""
    driver = dbos._runtime.bound("this test").driver
    perform = driver.perform

    def performing(effect: Effect[Any]) -> Any:
        if is_it(effect):
            place.hold()
        return perform(effect)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "perform", performing)
        yield


@contextmanager
def in_one_batch(dbos: DBOS, size: int) -> Iterator[None]:
    """Have ``size`` writes, begun by other threads within this block, flushed together."""
    committer = dbos._runtime.bound("this test").committer
    assert isinstance(committer, Committer)
    eventually(lambda: len(committer._free) == len(committer._lanes))
    with committer._lock:
        lanes = list(committer._free)
        committer._free.clear()
    yield
    eventually(lambda: len(committer._pending) == size, what="the writes of the batch")
    for lane in lanes:
        committer._pass_on(lane)


def rejected(future: Future[Any]) -> BaseException | None:
    return future.exception(timeout=PATIENCE)


# -- rule 4: a stalled entry leaves the batch ------------------------------------------------------


@pytest.mark.parametrize("stalled", ["step", "attempt", "finish"])
def test_a_row_lock_of_somebody_stalls_only_the_workflow_that_it_is_on(
    postgresql_database: TestDatabase, threads: ThreadPoolExecutor, stalled: str
) -> None:
    others = [f"other-{number}" for number in range(8)]
    ready = threading.Barrier(len(others) + 2)
    with launched(postgresql_database, config=UNAWARE) as dbos:

        @dbos.step(retry=Retry(max_attempts=2, backoff=0))
        def work() -> str:
            assert dbos.current.attempt > 1 or stalled != "attempt"
            return "done"

        @dbos.workflow
        def workflow() -> str:
            ready.wait(PATIENCE)
            return "done" if stalled == "finish" else work()

        def call(workflow_id: str) -> str:
            return workflow.options(workflow_id=workflow_id)()

        victim = threads.submit(call, "victim")
        futures = [threads.submit(call, workflow_id) for workflow_id in others]
        with Session(postgresql_database.make_engine()) as somebody:
            eventually(lambda: ready.n_waiting == len(others) + 1)
            locked(somebody, "victim")
            with in_one_batch(dbos, len(others) + 1):
                ready.wait(PATIENCE)
            assert [future.result(PATIENCE) for future in futures] == ["done"] * len(others)
            assert not victim.done()
            somebody.rollback()
        assert victim.result(PATIENCE) == "done"
    assert count_of(postgresql_database, StepOutput) == (0 if stalled == "finish" else len(others) + 1)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_an_open_transaction_that_inserted_a_workflow_id_stalls_only_its_start(
    postgresql_database: TestDatabase, threads: ThreadPoolExecutor, ending: str
) -> None:
    with launched(postgresql_database, config=UNAWARE) as dbos:

        @dbos.workflow
        def workflow() -> str:
            return "done"

        def call(workflow_id: str) -> str:
            return workflow.options(workflow_id=workflow_id)()

        template = call("template")
        others = [f"other-{number}" for number in range(8)]
        with Session(postgresql_database.make_engine()) as somebody:
            insert_copy(somebody, "template", "wanted")
            with in_one_batch(dbos, len(others) + 1):
                stalled = threads.submit(call, "wanted")
                futures = [threads.submit(call, workflow_id) for workflow_id in others]
            assert [future.result(PATIENCE) for future in futures] == [template] * len(others)
            assert not stalled.done()
            if ending == "commit":
                somebody.commit()
            else:
                somebody.rollback()
        assert stalled.result(PATIENCE) == "done"
    # Inserted by somebody or by us, and by nobody else in between.
    with Session(postgresql_database.make_engine()) as session:
        assert (session.get_one(WorkflowStatus, "wanted").executor_id == "somebody") == (ending == "commit")


def insert_copy(session: Session, workflow_id: str, copy_id: str) -> None:
    """Insert a workflow that is like another one and was run by somebody else."""
    found = session.execute(select(WorkflowStatus.__table__).filter_by(workflow_id=workflow_id)).one()
    values = {**found._mapping, "workflow_id": copy_id, "executor_id": "somebody", "generation": "another"}
    session.execute(insert(WorkflowStatus.__table__).values(values))


# -- rules 1 and 20: cancels ----------------------------------------------------------------------


@pytest.mark.parametrize("isolation_level", [None, "REPEATABLE READ", "SERIALIZABLE"])
def test_a_transactional_step_does_not_commit_after_a_cancel(
    postgresql_database: TestDatabase, threads: ThreadPoolExecutor, isolation_level: str | None
) -> None:
    place = Place()
    with launched(postgresql_database, config=UNAWARE) as dbos, bound(postgresql_database) as other:

        @dbos.transaction(isolation_level=isolation_level)
        def add(session: Session) -> None:
            # Its snapshot is from here on: in it, the workflow is PENDING for ever.
            assert session.scalar(select(func.count()).select_from(Item)) == 0
            session.add(Item(name="cancelled"))
            session.flush()
            place.hold()

        @dbos.workflow
        def workflow() -> None:
            add()

        called = threads.submit(workflow.options(workflow_id="run"))
        place.wait_for_one()
        other.handle("run").cancel()
        place.open()
        assert isinstance(rejected(called), WorkflowCancelledError)
    assert names_of_items(postgresql_database) == []
    assert count_of(postgresql_database, StepOutput) == 0
    assert status_of(postgresql_database, "run") is WorkflowState.CANCELLED


@pytest.mark.parametrize("isolation_level", [None, "REPEATABLE READ"])
def test_a_cancel_waits_for_a_transactional_step_that_has_recorded_itself(
    postgresql_database: TestDatabase, threads: ThreadPoolExecutor, isolation_level: str | None
) -> None:
    # Rule 1, FOR KEY SHARE: without the lock the cancel overtakes the step, whose commit then comes after it.
    place = Place()
    with launched(postgresql_database, config=UNAWARE) as dbos, bound(postgresql_database) as other:

        @dbos.transaction(isolation_level=isolation_level)
        def add(session: Session) -> None:
            session.add(Item(name="in time"))

        @dbos.workflow
        def workflow() -> None:
            add()

        with held_before(dbos, lambda effect: isinstance(effect, Commit), place):
            called = threads.submit(workflow.options(workflow_id="run"))
            place.wait_for_one()
            cancelled = threads.submit(other.handle("run").cancel)
            eventually(lambda: is_waiting_for_a_lock(postgresql_database))
            assert status_of(postgresql_database, "run") is WorkflowState.PENDING
            place.open()
            cancelled.result(PATIENCE)
            assert isinstance(rejected(called), WorkflowCancelledError)
    assert names_of_items(postgresql_database) == ["in time"]
    assert count_of(postgresql_database, StepOutput) == 1


def test_a_cancel_during_a_plain_step_leaves_no_record_of_it(
    database: TestDatabase, threads: ThreadPoolExecutor
) -> None:
    place, seen = Place(), []
    with launched(database, config=UNAWARE) as dbos, bound(database) as other:

        @dbos.step
        def work() -> None:
            place.hold()

        @dbos.workflow
        def workflow() -> None:
            try:
                work()
            except BaseException as error:
                seen.append(type(error))
                raise

        called = threads.submit(workflow.options(workflow_id="run"))
        place.wait_for_one()
        other.handle("run").cancel()
        place.open()
        assert isinstance(rejected(called), WorkflowCancelledError)
    assert seen == [WorkflowCancelled]
    assert count_of(database, StepOutput) == 0


def test_a_cancel_that_comes_before_the_finish_decides_although_the_function_returned(
    database: TestDatabase, threads: ThreadPoolExecutor
) -> None:
    place = Place()
    with launched(database, config=UNAWARE) as dbos, bound(database) as other:

        @dbos.workflow
        def workflow() -> str:
            place.hold()
            return "returned"

        called = threads.submit(workflow.options(workflow_id="run"))
        place.wait_for_one()
        other.handle("run").cancel()
        place.open()
        assert isinstance(rejected(called), WorkflowCancelledError)
        assert status_of(database, "run") is WorkflowState.CANCELLED
        # The other way round: what is finished is not cancelled.
        workflow.options(workflow_id="finished")()
        other.handle("finished").cancel()
        assert status_of(database, "finished") is WorkflowState.SUCCESS


def is_child(effect: Effect[Any]) -> bool:
    return isinstance(effect, Write) and isinstance(effect.entry, StepEntry) and effect.entry.child is not None


def test_a_child_is_not_started_after_its_tree_was_cancelled(
    database: TestDatabase, threads: ThreadPoolExecutor
) -> None:
    place = Place()
    with launched(database, config=UNAWARE) as dbos, bound(database) as other:

        @dbos.workflow
        def child() -> None: ...

        @dbos.workflow
        def parent() -> None:
            child.start()

        with held_before(dbos, is_child, place):
            called = threads.submit(parent.options(workflow_id="run"))
            place.wait_for_one()
            other.handle("run").cancel()
            place.open()
            assert isinstance(rejected(called), WorkflowCancelledError)
    assert count_of(database, WorkflowStatus) == 1


def test_a_cancel_of_a_tree_finds_the_child_whose_start_is_being_committed(
    database: TestDatabase, threads: ThreadPoolExecutor
) -> None:
    # Rule 1: children are read in a statement after the one that waited for the parent's row.
    place, running = Place(), Place()
    with launched(database, config=UNAWARE) as dbos, bound(database) as other:

        @dbos.workflow
        def child() -> None:
            running.hold()

        @dbos.workflow
        def parent() -> None:
            child.start().result()

        with held_at_commit_of_child(place):
            called = threads.submit(parent.options(workflow_id="run"))
            place.wait_for_one()
            cancelled = threads.submit(other.handle("run").cancel)
            if database.backend == "postgresql":
                eventually(lambda: is_waiting_for_a_lock(database))
            assert not cancelled.done()
            place.open()
            cancelled.result(PATIENCE)
        assert status_of(database, "run") is WorkflowState.CANCELLED
        assert status_of(database, "run-1") is WorkflowState.CANCELLED
        running.open()
        assert isinstance(rejected(called), WorkflowCancelledError)


@contextmanager
def held_at_commit_of_child(place: Place) -> Iterator[None]:
    """Hold the committer between the last statement of a child's start and its COMMIT."""
    write = checkpoints.write

    def writing(connection: DirectConnection, dialect: Dialect, entries: Sequence[Entry], **options: Any) -> set[int]:
        if not any(isinstance(entry, StepEntry) and entry.child is not None for entry in entries):
            return write(connection, dialect, entries, **options)
        # Where it is one statement, its commit is its own: to be held before it, it needs a transaction around it.
        is_alone = checkpoints.is_single_statement(dialect, entries)
        if is_alone:
            connection.execute("BEGIN")
        written = write(connection, dialect, entries, **options)
        place.hold()
        if is_alone:
            connection.execute("COMMIT")
        return written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "write", writing)
        yield
