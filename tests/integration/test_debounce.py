"""Starts that wait for an instant: debounced ones become one, and a delay can be changed while it lasts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Debounce, WorkflowHandle, WorkflowState, WorkflowStatus
from dbos_orm._store.entries import INTERNAL_QUEUE
from dbos_orm.errors import ConfigurationError, NotDelayedError, SessionMisuseError, WorkflowNotFoundError
from tests.databases import TestDatabase
from tests.integration.queued import row_of
from tests.integration.scopes import SCOPES
from tests.integration.shop import Interruption, count_of, reading
from tests.processes import PATIENCE

MINUTE = timedelta(minutes=1)
NEARLY = timedelta(seconds=20)


def register(dbos: DBOS) -> Any:
    @dbos.workflow(name="work")
    def work(number: int) -> int:
        return number

    return work


def input_of(database: TestDatabase, workflow_id: str) -> str:
    text = row_of(database, workflow_id).input
    assert text is not None
    return text


def make_older(database: TestDatabase, workflow_id: str, by: timedelta) -> None:
    """Let time pass."""
    with Session(database.make_engine()) as session, session.begin():
        row = session.get_one(WorkflowStatus, workflow_id)
        for name in ("created_at", "delay_until", "debounce_until"):
            instant = getattr(row, name)
            setattr(row, name, instant and instant - by)


def left(database: TestDatabase, workflow_id: str) -> timedelta:
    until = row_of(database, workflow_id).delay_until
    assert until is not None
    return until - datetime.now(UTC)


def test_starts_with_one_key_are_one_workflow_with_the_newest_arguments(starter: DBOS, database: TestDatabase) -> None:
    work = register(starter).options(debounce=Debounce("a", MINUTE))
    first = work.start(1)
    make_older(database, first.workflow_id, by=NEARLY)
    assert left(database, first.workflow_id) < MINUTE - NEARLY + timedelta(seconds=1)
    second = work.start(2)
    assert (first.created, second.created) == (True, False)
    assert second.workflow_id == first.workflow_id
    row = row_of(database, first.workflow_id)
    assert (row.status, row.queue, row.debounce_until) == (WorkflowState.DELAYED, INTERNAL_QUEUE, None)
    assert "2" in input_of(database, first.workflow_id)
    assert left(database, first.workflow_id) > MINUTE - NEARLY + timedelta(seconds=5)
    assert count_of(database, WorkflowStatus) == 1


def test_it_is_never_pushed_beyond_max_wait(starter: DBOS, database: TestDatabase) -> None:
    work = register(starter).options(debounce=Debounce("a", MINUTE, max_wait=1.5 * MINUTE))
    first = work.start(1)
    make_older(database, first.workflow_id, by=timedelta(seconds=50))
    work.start(2)
    assert timedelta(seconds=30) < left(database, first.workflow_id) < timedelta(seconds=41)
    make_older(database, first.workflow_id, by=MINUTE)
    work.options(debounce=Debounce("a", MINUTE, max_wait=None)).start(3)
    assert left(database, first.workflow_id) < timedelta()
    assert "3" in input_of(database, first.workflow_id)


def test_keys_are_of_one_workflow_in_one_queue_and_partition(starter: DBOS, database: TestDatabase) -> None:
    starter.queue("orders")
    starter.queue("parts", partitioned=True)
    work = register(starter).options(debounce=Debounce("a", MINUTE))

    @starter.workflow
    def other(number: int) -> int:
        return number

    different = [
        work,
        work.options(debounce=Debounce("b", MINUTE)),
        work.options(queue="orders"),
        work.options(queue="parts", partition_key="acme"),
        work.options(queue="parts", partition_key="umbrella"),
        other.options(debounce=Debounce("a", MINUTE)),
    ]
    assert all(one.start(1).created for one in different)
    assert not any(one.start(2).created for one in different)
    assert count_of(database, WorkflowStatus) == len(different)


def test_what_is_due_is_a_new_start(starter: DBOS, database: TestDatabase) -> None:
    work = register(starter).options(debounce=Debounce("a", MINUTE))
    first = work.start(1)
    with Session(database.make_engine()) as session, session.begin():
        # One that became ENQUEUED and was left its key would be in everybody's way for ever.
        session.execute(update(WorkflowStatus).values(status=WorkflowState.ENQUEUED))
    second = work.start(2)
    assert second.created
    assert "1" in input_of(database, first.workflow_id)
    assert count_of(database, WorkflowStatus) == 2


@SCOPES
def test_starts_in_transactions_of_the_callers_are_debounced(
    starter: DBOS, database: TestDatabase, scope_of: Any
) -> None:
    work = register(starter).options(debounce=Debounce("a", MINUTE))
    first = work.start(1)
    with scope_of(database) as scope:
        second = work.start_in(scope, 2)
        assert (second.workflow_id, second.created) == (first.workflow_id, False)
        scope.rollback()
        assert "1" in input_of(database, first.workflow_id)
        work.start_in(scope, 3)
        scope.commit()
    assert "3" in input_of(database, first.workflow_id)


def test_a_parent_records_the_child_that_waits(dbos: DBOS, database: TestDatabase) -> None:
    child = register(dbos).options(debounce=Debounce("a", 10 * MINUTE))
    replayed: list[list[Any]] = []

    @dbos.transaction
    def order(session: Session) -> str:
        handle: WorkflowHandle[int] = child.start(3)
        return handle.workflow_id

    @dbos.workflow
    def parent() -> list[Any]:
        found = [(handle.workflow_id, handle.created) for handle in (child.start(1), child.start(2))]
        replayed.append([*found, order()])
        if len(replayed) == 1:
            raise Interruption
        return replayed[-1]

    expected = [("p-1", True), ("p-1", False), "p-1"]
    assert parent.options(workflow_id="p").start().result(timeout=PATIENCE) == expected
    assert replayed == [expected, expected]
    assert [step.child_id for step in dbos.handle("p").steps()] == ["p-1", "p-1", None]
    with reading(database) as session:
        rows = session.scalars(select(WorkflowStatus).where(WorkflowStatus.name == "work")).all()
    assert [(row.workflow_id, row.parent_id, row.parent_step) for row in rows] == [("p-1", "p", "1")]
    assert "3" in input_of(database, "p-1")


# -- changing a delay ----------------------------------------------------------------------------


def test_a_delay_can_be_changed_while_it_lasts(starter: DBOS, database: TestDatabase) -> None:
    handle = register(starter).options(delay=MINUTE).start(1)
    heard: list[tuple[str, str]] = []

    def hear(queue: str, name: str, is_expected: bool) -> bool:
        heard.append((queue, name))
        return True

    starter._runtime.bound("test").hints.dispatcher = hear
    handle.set_delay(3 * MINUTE)
    assert 2 * MINUTE < left(database, handle.workflow_id) < 3 * MINUTE
    handle.set_delay(0)
    assert left(database, handle.workflow_id) < timedelta()
    assert heard == [(INTERNAL_QUEUE, "work")] * 2
    assert handle.describe().delay_until == row_of(database, handle.workflow_id).delay_until


def test_a_delay_that_is_over_cannot_be_changed(starter: DBOS) -> None:
    work = register(starter)
    handle = work.start(1)
    with pytest.raises(NotDelayedError) as caught:
        handle.set_delay(1)
    assert (caught.value.workflow_id, caught.value.status) == (handle.workflow_id, WorkflowState.ENQUEUED)
    with pytest.raises(WorkflowNotFoundError):
        work.handle("missing").set_delay(1)
    for value in (-1, "1"):
        with pytest.raises(ConfigurationError, match="duration"):
            handle.set_delay(value)


def test_a_workflow_records_that_it_changed_a_delay(dbos: DBOS, database: TestDatabase) -> None:
    child = register(dbos)
    attempts: list[str] = []

    @dbos.transaction
    def order(session: Session) -> None:
        child.handle("c").set_delay(1)

    @dbos.workflow
    def parent() -> str:
        handle = child.options(delay=10 * MINUTE, workflow_id="c").start(1)
        handle.set_delay(20 * MINUTE)
        with pytest.raises(SessionMisuseError):
            order()
        try:
            child.options(workflow_id="now").start(2).set_delay(1)
        except NotDelayedError as error:
            attempts.append(error.status)
        if len(attempts) == 1:
            raise Interruption
        return attempts[-1]

    parent.options(workflow_id="p").start().result(timeout=PATIENCE)
    assert attempts[0] == attempts[1]
    names = [step.name for step in dbos.handle("p").steps()]
    assert names[:2] == ["work", "set_delay"]
    assert left(database, "c") > 15 * MINUTE


async def test_coroutines_debounce_and_change_delays(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    @async_dbos.workflow
    async def work(number: int) -> int:
        return number

    debounced = work.options(debounce=Debounce("a", 10 * MINUTE))

    @async_dbos.workflow
    async def parent() -> list[Any]:
        first, second = await debounced.start(1), await debounced.start(2)
        await first.set_delay(20 * MINUTE)
        return [first.workflow_id, second.workflow_id, second.created]

    assert await parent.options(workflow_id="p")() == ["p-1", "p-1", False]
    assert (await debounced.start(3)).workflow_id == "p-1"
    handle = work.handle("p-1")
    await handle.set_delay(30 * MINUTE)
    assert left(database, "p-1") > 25 * MINUTE
    await handle.cancel()
    with pytest.raises(NotDelayedError):
        await handle.set_delay(1)
