"""Starts inside transactional steps, what is refused, and the asynchronous kinds of scopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, StagedHandle
from dbos_orm.errors import (
    NotCommittedError,
    SessionMisuseError,
    StartInStepError,
)
from dbos_orm.models import WorkflowStatus
from tests.conftest import MakeDatabase
from tests.databases import TestDatabase
from tests.integration.scopes import UNHURRIED, session_of
from tests.integration.shop import Item, OutOfStockError, count_of, launched_async, names_of_items
from tests.processes import PATIENCE

# -- in a transactional step ---------------------------------------------------------------------


def test_a_start_in_a_transactional_step_is_part_of_its_commit(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def child(number: int) -> tuple[int, str | None]:
        return number, dbos.current.parent_id

    @dbos.transaction
    def order(session: Session, *, fails: bool) -> list[str]:
        session.add(Item(name=f"{fails}"))
        ids = [child.start(1).workflow_id, child.start_in(session, 2).workflow_id]
        if fails:
            raise OutOfStockError("tea", left=0)
        return [*ids, child.options(workflow_id="mine").start_in(session.connection(), 3).workflow_id]

    @dbos.workflow
    def work() -> list[Any]:
        with pytest.raises(OutOfStockError):
            order(fails=True)
        ids = order(fails=False)
        return [ids, *(child.handle(found).result() for found in ids)]

    found = work.options(workflow_id="w")()
    assert found == [["w-2-1", "w-2-2", "mine"], (1, "w"), (2, "w"), (3, "w")]
    assert names_of_items(database) == ["False"]
    assert count_of(database, WorkflowStatus, parent_id="w", parent_step="2") == 3
    assert [step.path for step in dbos.handle("w").steps()] == ["1", "2", "3", "4", "5"]


def test_the_numbers_of_starts_begin_again_with_every_attempt(dbos: DBOS, database: TestDatabase) -> None:
    attempts: list[str] = []

    @dbos.workflow
    def child() -> None: ...

    @dbos.transaction
    def order(session: Session) -> str:
        attempts.append(child.start().workflow_id)
        if len(attempts) == 1:
            refuse(session)
        return attempts[-1]

    @dbos.workflow
    def work() -> str:
        return order()

    assert work.options(workflow_id="w")() == "w-1-1"
    assert attempts == ["w-1-1", "w-1-1"]
    assert count_of(database, WorkflowStatus, parent_id="w") == 1


class ConflictError(Exception):
    """As a driver tells of another transaction that was in the way."""

    pgcode = "40001"


def refuse(session: Session) -> None:
    raise OperationalError("UPDATE item", {}, ConflictError("database is locked"))


def test_a_start_outside_a_workflow_is_part_of_the_transaction(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def child(number: int) -> int:
        return number

    handles: list[Any] = []

    @dbos.transaction
    def order(session: Session, *, fails: bool) -> None:
        handles.append(child.start(3))
        with pytest.raises(NotCommittedError):
            handles[-1].status()
        if fails:
            raise OutOfStockError("tea", left=0)

    order(fails=False)
    assert isinstance(handles[0], StagedHandle)
    assert handles[0].result(timeout=PATIENCE) == 3
    with pytest.raises(OutOfStockError):
        order(fails=True)
    assert count_of(database, WorkflowStatus) == 1


def test_a_call_in_a_transaction_is_refused(dbos: DBOS) -> None:
    @dbos.workflow
    def child() -> None: ...

    @dbos.transaction
    def order(session: Session) -> None:
        child()

    with pytest.raises(StartInStepError, match="transaction"):
        order()


# -- what cannot be ------------------------------------------------------------------------------


def test_other_sessions_are_refused_inside_a_workflow(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def child() -> None: ...

    @dbos.transaction
    def order(session: Session) -> None:
        with session_of(database) as other, pytest.raises(SessionMisuseError, match="another session"):
            child.start_in(other)

    @dbos.step
    def charge() -> None:
        with session_of(database) as other, pytest.raises(StartInStepError):
            child.start_in(other)

    @dbos.workflow
    def work() -> None:
        with session_of(database) as other, pytest.raises(SessionMisuseError, match="body of workflow"):
            child.start_in(other)
        order()
        charge()

    work()
    assert count_of(database, WorkflowStatus) == 1


def closed_session(database: TestDatabase) -> Any:
    session = Session(database.make_engine(), close_resets_only=False)
    session.close()
    return session


def closed_connection(database: TestDatabase) -> Any:
    connection = database.make_engine().connect()
    connection.close()
    return connection


def autocommit_session(database: TestDatabase) -> Any:
    return Session(create_engine(database.url, isolation_level="AUTOCOMMIT", poolclass=NullPool))


def unbound_session(database: TestDatabase) -> Any:
    return Session()


def an_engine(database: TestDatabase) -> Any:
    return database.make_engine()


def no_session(database: TestDatabase) -> Any:
    return None


@pytest.mark.parametrize(
    "make", [closed_session, closed_connection, autocommit_session, unbound_session, an_engine, no_session]
)
def test_a_session_that_cannot_hold_a_start_is_refused(
    dbos: DBOS, database: TestDatabase, make: Callable[[TestDatabase], Any]
) -> None:
    @dbos.workflow(name="ship")
    def ship() -> None: ...

    scope = make(database)
    try:
        with pytest.raises(SessionMisuseError, match="ship"):
            ship.start_in(scope)
    finally:
        if isinstance(scope, Session):
            scope.close()
    assert count_of(database, WorkflowStatus) == 0


def test_a_session_of_another_database_is_refused(
    dbos: DBOS, make_database: MakeDatabase, database: TestDatabase
) -> None:
    @dbos.workflow(name="ship")
    def ship() -> None: ...

    elsewhere = make_database(database.backend)
    with session_of(elsewhere) as session:
        with pytest.raises(SessionMisuseError, match="another database"):
            ship.start_in(session)
        session.commit()
    assert count_of(elsewhere, WorkflowStatus) == 0
    with session_of(database) as session:
        handle = ship.start_in(session)
        session.commit()
    assert handle.result(timeout=PATIENCE) is None


# -- coroutines ----------------------------------------------------------------------------------


async def test_asynchronous_scopes(database: TestDatabase) -> None:
    engine = database.make_async_engine()
    async with launched_async(database, config=UNHURRIED) as dbos:

        @dbos.workflow
        async def double(number: int) -> int:
            return 2 * number

        async with AsyncSession(engine) as session:
            handle = await double.start_in(session, 1)
            with pytest.raises(NotCommittedError):
                await handle.status()
            row = await handle.row
            assert row.workflow_id == handle.workflow_id
            await session.commit()
            assert await handle.result(timeout=PATIENCE) == 2
            gone = await double.start_in(session, 1)
            await session.rollback()
            with pytest.raises(NotCommittedError):
                await gone.result()
        registry = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: None)
        handle = await double.start_in(registry, 2)
        await registry.commit()
        assert await handle.result(timeout=PATIENCE) == 4
        await registry.remove()
        async with engine.connect() as connection:
            handle = await double.start_in(connection, 3)
            await connection.commit()
            assert await handle.result(timeout=PATIENCE) == 6


async def test_a_start_in_an_asynchronous_transactional_step(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    dbos = async_dbos

    @dbos.workflow
    async def child(number: int) -> int:
        return number

    @dbos.transaction
    async def order(session: AsyncSession) -> list[str]:
        session.add(Item(name="tea"))
        first = await child.start(1)
        second = await child.start_in(session, 2)
        return [first.workflow_id, second.workflow_id]

    @dbos.workflow
    async def work() -> list[Any]:
        ids = await order()
        return [ids, *[await child.handle(found).result() for found in ids]]

    assert await work.options(workflow_id="w")() == [["w-1-1", "w-1-2"], 1, 2]


async def test_each_colour_starts_in_the_scopes_of_the_other(database: TestDatabase) -> None:
    sync, coroutines = DBOS(name="shop"), AsyncDBOS(name="shop")

    @sync.workflow(name="work")
    def work() -> None: ...

    @coroutines.workflow(name="awork")
    async def awork() -> None: ...

    async with AsyncSession(database.make_async_engine()) as session:
        assert (await work.start_in(session)).created
        assert (await awork.start_in(session)).created
        await session.commit()
    with session_of(database) as plain:
        assert work.start_in(plain).created
        assert awork.start_in(plain).created
        assert len(plain.scalars(select(WorkflowStatus)).all()) == 4
