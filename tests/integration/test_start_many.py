"""Many starts in one transaction: all of them or none, from outside, in transactions, and as one step of a workflow."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import (
    DBOS,
    AsyncDBOS,
    AsyncStagedHandle,
    AsyncWorkflowHandle,
    Call,
    Debounce,
    StagedHandle,
    WorkflowHandle,
    WorkflowState,
    WorkflowStatus,
)
from dbos_orm._store.entries import INTERNAL_QUEUE
from dbos_orm.errors import (
    ConfigurationError,
    ConflictingWorkflowError,
    DBOSError,
    DeduplicationError,
    NotCommittedError,
    QueueNotFoundError,
    StartInStepError,
    WorkflowExistsError,
)
from tests.databases import TestDatabase
from tests.integration.queued import make_queue, row_of
from tests.integration.scopes import SCOPES
from tests.integration.shop import Interruption, OutOfStockError, Statements, count_of, reading
from tests.processes import PATIENCE


class Workflows:
    """Two workflows of one application, and a queue."""

    def __init__(self, dbos: DBOS) -> None:
        dbos.queue("orders")

        @dbos.workflow(name="double")
        def double(number: int) -> int:
            return 2 * number

        @dbos.workflow(name="spell")
        def spell(word: str, *, times: int = 1) -> str:
            return word * times

        self.double = double
        self.queued = double.options(queue="orders")
        self.spell = spell


def test_workflows_of_all_kinds_are_started_in_the_order_of_their_calls(starter: DBOS, database: TestDatabase) -> None:
    found = Workflows(starter)
    calls: list[Call[Any]] = [
        found.queued.options(priority=3, workflow_id="b").call(1),
        found.double.call(2),
        found.spell.options(queue="orders", delay=60, workflow_id="a").call("x", times=2),
        found.queued.options(deduplication_id="d", attributes={"tenant": 7}, timeout=5).call(4),
        found.double.options(debounce=Debounce("k", 60)).call(5),
    ]
    handles = starter.start_many(calls)
    assert all(type(handle) is WorkflowHandle and handle.created for handle in handles)
    rows = [row_of(database, handle.workflow_id) for handle in handles]
    assert [(row.name, row.queue, row.status) for row in rows] == [
        ("double", "orders", WorkflowState.ENQUEUED),
        ("double", INTERNAL_QUEUE, WorkflowState.ENQUEUED),
        ("spell", "orders", WorkflowState.DELAYED),
        ("double", "orders", WorkflowState.ENQUEUED),
        ("double", INTERNAL_QUEUE, WorkflowState.DELAYED),
    ]
    assert [row.workflow_id for row in rows][::2][:2] == ["b", "a"]
    assert rows == sorted(rows, key=lambda row: row.sequence)
    assert (rows[0].priority, rows[3].deduplication_id, rows[3].attributes) == (3, "d", {"tenant": 7})
    assert "x" in str(rows[2].input)


def test_what_waits_without_a_queue_is_run(dbos: DBOS) -> None:
    found = Workflows(dbos)
    handles = dbos.start_many(found.double.call(number) for number in range(5))
    assert [handle.result(timeout=PATIENCE) for handle in handles] == [0, 2, 4, 6, 8]


def test_thousands_are_written_in_few_statements_and_one_transaction(starter: DBOS, database: TestDatabase) -> None:
    found = Workflows(starter)
    starter.start_many([found.queued.call(0)])
    statements = Statements(starter._runtime.bound("test").gateway.engine)
    # Those of one size, and larger ones that fill statements sooner.
    handles = starter.start_many(
        [found.queued.call(number) for number in range(2500)] + [found.spell.call("x" * 900_000) for _ in range(3)]
    )
    assert len(handles) == 2503
    assert count_of(database, WorkflowStatus) == 2504
    sent = [statement.split(maxsplit=3) for statement in statements.sent]
    assert [words[2] for words in sent if words[0] == "INSERT"] == ["dbos_workflow_status"] * 4
    assert [words[0] for words in sent if words[0] in ("BEGIN", "COMMIT")] == ["BEGIN", "COMMIT"]
    with reading(database) as session:
        sequences = select(func.count(WorkflowStatus.sequence.distinct()))
        assert session.scalar(sequences) == 2504


def test_known_ids_are_given_and_come_once(starter: DBOS, database: TestDatabase) -> None:
    found = Workflows(starter)
    first = found.queued.options(workflow_id="w").start(1)
    named, new = found.queued.options(workflow_id="w"), found.queued.options(workflow_id="n")
    handles = starter.start_many([named.call(1), new.call(2), new.call(2), found.queued.call(3)])
    assert [handle.created for handle in handles] == [False, True, True, True]
    assert handles[1] is handles[2]
    assert handles[0].workflow_id == first.workflow_id
    assert count_of(database, WorkflowStatus) == 3


def test_deduplicated_ones_are_given_too(starter: DBOS, database: TestDatabase) -> None:
    found = Workflows(starter)
    once = found.queued.options(deduplication_id="d", on_duplicate="return")
    first = once.start(1)
    other = once.options(deduplication_id="e")
    handles = starter.start_many([once.call(2), other.call(3), other.call(4)])
    assert [handle.created for handle in handles] == [False, True, True]
    assert handles[0].workflow_id == first.workflow_id
    assert handles[1] is handles[2]
    assert count_of(database, WorkflowStatus) == 2


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (WorkflowExistsError, lambda found: found.queued.options(workflow_id="w", on_existing="raise").call(1)),
        (DeduplicationError, lambda found: found.queued.options(deduplication_id="d").call(1)),
        (ConflictingWorkflowError, lambda found: found.spell.options(workflow_id="w").call("x")),
        (QueueNotFoundError, lambda found: found.double.options(queue="missing").call(1)),
        (ConfigurationError, lambda found: found.queued.options(partition_key="a").call(1)),
        (ConfigurationError, lambda found: Workflows(DBOS(name="bank")).double.call(1)),
        (ConfigurationError, lambda found: found.double),
    ],
)
def test_if_one_cannot_be_none_is(starter: DBOS, database: TestDatabase, kind: type[DBOSError], make: Any) -> None:
    found = Workflows(starter)
    found.queued.options(workflow_id="w", deduplication_id="d").start(1)
    calls = [found.queued.call(1), make(found), found.spell.call("x")]
    with pytest.raises(kind):
        starter.start_many(calls)
    with Session(database.make_engine()) as session, session.begin():
        starter.start_many([found.queued.call(2)], session=session)
        with pytest.raises(kind):
            starter.start_many(calls, session=session)
    assert count_of(database, WorkflowStatus) == 2


@SCOPES
def test_starts_in_a_transaction_of_the_callers_come_with_its_commit(
    dbos: DBOS, database: TestDatabase, scope_of: Any
) -> None:
    found = Workflows(dbos)
    with scope_of(database) as scope:
        dropped = dbos.start_many([found.double.call(1)], session=scope)
        scope.rollback()
        handles = dbos.start_many([found.double.call(number) for number in range(3)], session=scope)
        assert all(type(handle) is StagedHandle for handle in handles)
        with pytest.raises(NotCommittedError):
            handles[0].result()
        scope.commit()
        assert [handle.result(timeout=PATIENCE) for handle in handles] == [0, 2, 4]
        with pytest.raises(NotCommittedError):
            dropped[0].status()


def test_in_a_workflow_it_is_one_step_and_a_replay_gives_the_same(dbos: DBOS, database: TestDatabase) -> None:
    found = Workflows(dbos)
    seen: list[Any] = []
    found.queued.options(workflow_id="known", deduplication_id="d", delay=600).start(1)
    again = found.queued.options(deduplication_id="d", on_duplicate="return")

    @dbos.workflow
    def parent() -> list[Any]:
        empty = dbos.start_many(list[Call[int]]())
        handles = dbos.start_many(found.double.call(number) for number in range(3))
        mixed = dbos.start_many([found.queued.options(workflow_id="given").call(1), again.call(2), again.call(3)])
        with pytest.raises(DeduplicationError) as refused:
            dbos.start_many([found.double.call(1), found.queued.options(deduplication_id="d").call(1)])
        with pytest.raises(QueueNotFoundError) as missing:
            dbos.start_many([found.double.options(queue="late").call(1)])
        ids = [[(one.workflow_id, one.created) for one in many] for many in (empty, handles, mixed)]
        seen.append([*ids, refused.value.workflow_id, missing.value.queue, mixed[1] is mixed[2]])
        if len(seen) == 1:
            # What a replay finds there now must not matter.
            make_queue(database, "late")
            with Session(database.make_engine()) as session, session.begin():
                session.execute(update(WorkflowStatus).values(deduplication_id=None))
            raise Interruption
        return [handle.result() for handle in handles]

    assert parent.options(workflow_id="p").start().result(timeout=PATIENCE) == [0, 2, 4]
    assert seen[0] == seen[1]
    assert seen[0][:3] == [
        [],
        [("p-2-1", True), ("p-2-2", True), ("p-2-3", True)],
        [("given", True), ("known", False), ("known", False)],
    ]
    assert seen[0][3:] == ["known", "late", True]
    steps = dbos.handle("p").steps()
    assert [(step.path, step.name, step.kind) for step in steps][:5] == [
        (str(number), "start_many", "child") for number in range(1, 6)
    ]
    assert steps[1].output == {"workflow_ids": ["p-2-1", "p-2-2", "p-2-3"], "known": []}
    assert isinstance(steps[3].error, DeduplicationError)
    assert count_of(database, WorkflowStatus, parent_id="p") == 4
    assert row_of(database, "p-2-3").parent_step == "2"


def test_it_is_a_part_of_a_transactional_step_and_no_part_of_a_plain_one(dbos: DBOS, database: TestDatabase) -> None:
    found = Workflows(dbos)

    @dbos.transaction
    def order(session: Session, *, fails: bool) -> list[str]:
        handles = dbos.start_many([found.double.call(1), found.double.call(2)])
        if fails:
            raise OutOfStockError("tea", left=0)
        more = dbos.start_many([found.double.call(3)], session=session)
        return [handle.workflow_id for handle in (*handles, *more)]

    @dbos.step
    def charge() -> None:
        dbos.start_many([found.double.call(1)])

    @dbos.workflow
    def parent() -> list[int]:
        with pytest.raises(OutOfStockError):
            order(fails=True)
        with pytest.raises(StartInStepError):
            charge()
        ids = order(fails=False)
        assert ids == ["p-3-1", "p-3-2", "p-3-3"]
        return [found.double.handle(one).result() for one in ids]

    assert parent.options(workflow_id="p")() == [2, 4, 6]
    assert len(order(fails=False)) == 3


def test_each_queue_and_workflow_is_announced_once(starter: DBOS) -> None:
    found = Workflows(starter)
    heard: list[tuple[str, str]] = []

    def hear(queue: str, name: str, is_expected: bool) -> bool:
        heard.append((queue, name))
        return True

    starter._runtime.bound("test").hints.dispatcher = hear
    calls: list[Call[Any]] = [found.queued.call(number) for number in range(9)]
    starter.start_many([*calls, found.spell.call("x")])
    assert heard == [("orders", "double"), (INTERNAL_QUEUE, "spell")]


def test_arguments_are_those_that_were_given_when_the_call_was_made(dbos: DBOS) -> None:
    @dbos.workflow
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    numbers = [1, 2]
    call = total.call(numbers)
    numbers.append(3)
    assert dbos.start_many([call])[0].result(timeout=PATIENCE) == 3


async def test_coroutines_start_many(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    @async_dbos.workflow
    async def double(number: int) -> int:
        return 2 * number

    @async_dbos.sync.workflow(name="spell")
    def spell(word: str) -> str:
        return word

    @async_dbos.transaction
    async def order(session: AsyncSession) -> list[str]:
        return [handle.workflow_id for handle in await async_dbos.start_many([double.call(5)])]

    @async_dbos.workflow
    async def parent() -> list[Any]:
        handles = await async_dbos.start_many([double.call(1), double.call(2)])
        return [*[await handle.result() for handle in handles], handles[0].workflow_id, *await order()]

    assert await parent.options(workflow_id="p")() == [2, 4, "p-1-1", "p-4-1"]
    calls: list[Call[Any]] = [double.call(1), spell.call("x")]
    handles = await async_dbos.start_many(calls)
    assert all(type(handle) is AsyncWorkflowHandle for handle in handles)
    assert [await handle.result(timeout=PATIENCE) for handle in handles] == [2, "x"]
    async with AsyncSession(database.make_async_engine()) as session:
        staged = await async_dbos.start_many([double.call(3)], session=session)
        assert type(staged[0]) is AsyncStagedHandle
        with pytest.raises(NotCommittedError):
            await staged[0].status()
        await session.commit()
        assert await staged[0].result(timeout=PATIENCE) == 6
