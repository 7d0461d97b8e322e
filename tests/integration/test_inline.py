"""Inline: everything on one connection of the caller's, which rolls back in the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Retry, WorkflowState
from dbos_orm.errors import ConfigurationError, NotCommittedError, NotLaunchedError
from dbos_orm.models import WorkflowStatus
from tests.databases import POSTGRESQL, TestDatabase
from tests.integration.shop import Base, Item, OutOfStockError, count_of, names_of_items


@contextmanager
def inline(database: TestDatabase) -> Iterator[tuple[DBOS, Connection]]:
    """An application that is launched on a connection whose transaction is rolled back."""
    engine = database.make_engine()
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        transaction = connection.begin()
        with DBOS(name="shop").launch(connection, inline=True) as dbos:
            yield dbos, connection
        assert transaction.is_active
        transaction.rollback()
    assert count_of(database, WorkflowStatus) == 0
    assert names_of_items(database) == []


@asynccontextmanager
async def inline_async(database: TestDatabase) -> AsyncIterator[tuple[AsyncDBOS, AsyncConnection]]:
    """``inline`` for coroutines."""
    engine = database.make_async_engine()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncDBOS(name="shop").launch(connection, inline=True) as dbos:
            yield dbos, connection
        await transaction.rollback()
    assert count_of(database, WorkflowStatus) == 0
    assert names_of_items(database) == []


def test_a_launch_leaves_nothing_behind_and_starts_no_thread(database: TestDatabase) -> None:
    threads = set(threading.enumerate())
    with inline(database) as (dbos, connection):

        @dbos.transaction
        def add(session: Session, name: str) -> int:
            session.add(item := Item(name=name))
            session.flush()
            return item.id

        @dbos.workflow
        def work() -> int:
            return add("tea")

        assert work.options(workflow_id="w")() == connection.scalar(select(Item.id))
        assert [step.name for step in dbos.handle("w").steps()] == [add.name]
        assert set(threading.enumerate()) == threads


def test_what_is_started_runs_when_it_is_drained(database: TestDatabase) -> None:
    with inline(database) as (dbos, _):

        @dbos.workflow
        def child(number: int) -> int:
            return number

        @dbos.workflow
        def work(number: int) -> int:
            return sum(child.start(one).result() for one in range(number))

        handles = [work.start(number) for number in (1, 2, 3)]
        assert [handle.status() for handle in handles] == [WorkflowState.ENQUEUED] * 3
        assert dbos.drain() == 3 + 1 + 2 + 3
        assert dbos.drain() == 0
        assert [handle.result() for handle in handles] == [0, 1, 3]


def test_waiting_runs_what_is_waited_for(database: TestDatabase) -> None:
    with inline(database) as (dbos, _):

        @dbos.workflow
        def fail() -> None:
            raise OutOfStockError("tea", left=0)

        @dbos.workflow
        def never() -> None: ...

        with pytest.raises(OutOfStockError):
            fail.start().result()
        with pytest.raises(TimeoutError, match="'w'"):
            never.options(workflow_id="w", version="another").start().result()


def test_a_failed_transaction_takes_back_only_its_own(database: TestDatabase) -> None:
    with inline(database) as (dbos, connection):

        @dbos.transaction
        def add(session: Session, name: str) -> None:
            session.add(Item(name=name))
            session.flush()
            if name == "coffee":
                session.execute(text("SELECT nothing FROM nowhere"))

        @dbos.step(retry=Retry(max_attempts=2, backoff=0))
        def charge() -> int:
            if dbos.current.attempt == 1:
                raise ValueError("try again")
            return dbos.current.attempt

        @dbos.workflow
        def work() -> int:
            add("tea")
            with pytest.raises(Exception, match="nowhere"):
                add("coffee")
            return charge()

        connection.execute(insert(Item).values(name="mine"))
        assert work() == 2
        assert sorted(connection.scalars(select(Item.name))) == ["mine", "tea"]


def test_a_start_in_a_session_of_the_test(database: TestDatabase) -> None:
    with inline(database) as (dbos, connection):

        @dbos.workflow
        def work(number: int) -> int:
            return number

        with Session(connection, join_transaction_mode="create_savepoint") as session:
            session.add(Item(name="tea"))
            kept = work.start_in(session, 1)
            with pytest.raises(NotCommittedError):
                kept.result()
            session.commit()
            gone = work.start_in(session, 2)
            session.rollback()
        assert kept.result() == 1
        with pytest.raises(NotCommittedError):
            gone.result()
        assert connection.scalar(select(func.count()).select_from(WorkflowStatus)) == 1


def test_nothing_is_set_on_the_connection_for_good(postgresql_database: TestDatabase) -> None:
    with inline(postgresql_database) as (dbos, connection):

        @dbos.transaction(isolation_level="SERIALIZABLE")
        def add(session: Session, name: str) -> None:
            session.add(Item(name=name))

        @dbos.workflow
        def work(name: str) -> None:
            add(name)

        before = set(connection.execute(text("SHOW ALL")))
        work("tea")
        work.start("coffee").result()
        assert not set(connection.execute(text("SHOW ALL"))) - before


async def test_coroutines(database: TestDatabase) -> None:
    async with inline_async(database) as (dbos, connection):

        @dbos.step
        async def double(number: int) -> int:
            await asyncio.sleep(0)
            return 2 * number

        @dbos.transaction
        async def add(session: AsyncSession, name: str) -> str:
            session.add(Item(name=name))
            await session.flush()
            return (await child.start(len(name))).workflow_id

        @dbos.workflow
        async def child(number: int) -> int:
            return await double(number)

        @dbos.workflow
        async def work() -> list[Any]:
            started = await child.start(1)
            found = await asyncio.gather(double(2), add("tea"), started.result(), add("coffee"), double(3), child(4))
            return [*found, await child.handle(found[1]).result()]

        handle = await work.start()
        assert await handle.status() is WorkflowState.ENQUEUED
        # Those that a transaction started and nobody waited for ran with it.
        assert await dbos.drain() == 4
        result = await handle.result()
        assert [result[0], result[2], result[4], result[5], result[6]] == [4, 2, 6, 8, 6]
        assert sorted(await connection.scalars(select(Item.name))) == ["coffee", "tea"]
        assert await (await child.start(9)).result() == 18
        async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
            staged = await child.start_in(session, 5)
            with pytest.raises(NotCommittedError):
                await staged.result()
            await session.commit()
        assert await staged.result() == 10


async def test_many_steps_at_a_time(database: TestDatabase) -> None:
    async with inline_async(database) as (dbos, connection):

        @dbos.transaction
        async def add(session: AsyncSession, number: int) -> int:
            session.add(Item(name=f"{number}"))
            await session.flush()
            await asyncio.sleep(0)
            return number

        @dbos.step
        async def double(number: int) -> int:
            return 2 * number

        @dbos.workflow
        async def work(number: int) -> int:
            found = await asyncio.gather(*(step(number + one) for one in range(10) for step in (add, double)))
            return sum(found)

        first, second = await asyncio.gather(work(0), work(100))
        assert (first, second) == (135, 3135)
        assert await connection.scalar(select(func.count()).select_from(Item)) == 20


def test_an_exit_of_a_workflow_ends_the_drain(database: TestDatabase) -> None:
    with inline(database) as (dbos, _):
        began = []

        @dbos.workflow
        def leave(how: str) -> None:
            began.append(how)
            if began.count(how) == 1 and how == "interrupt":
                raise KeyboardInterrupt(how)
            if began.count(how) == 1:
                pytest.fail(how)

        for how in ("interrupt", "failed"):
            handle = leave.start(how)
            with pytest.raises(BaseException, match=how):
                dbos.drain()
            assert began.count(how) == 1
            assert handle.status() is WorkflowState.ENQUEUED
            assert handle.result() is None


async def test_many_wait_at_a_time_for_what_one_of_them_runs(database: TestDatabase) -> None:
    async with inline_async(database) as (dbos, _):

        @dbos.step
        async def double(number: int) -> int:
            await asyncio.sleep(0)
            return 2 * number

        @dbos.workflow
        async def child(number: int) -> int:
            return sum(await dbos.gather(double(number), double(number)))

        @dbos.workflow
        async def work() -> list[int]:
            started = [await child.start(number) for number in range(4)]
            return list(await asyncio.gather(*(handle.result() for handle in started)))

        first, second = await asyncio.gather(work(), work())
        assert first == second == [0, 4, 8, 12]
        handles = [await child.start(number) for number in range(6)]
        waited = (handle.result() for handle in [*handles, *handles])
        results = await asyncio.gather(*waited, dbos.drain())
        assert results[:6] == results[6:12] == [0, 4, 8, 12, 16, 20]


async def test_a_drain_can_be_cancelled(database: TestDatabase) -> None:
    async with inline_async(database) as (dbos, _):
        began, may_end = asyncio.Event(), asyncio.Event()

        @dbos.workflow
        async def wait() -> int:
            began.set()
            await may_end.wait()
            return 1

        handle = await wait.start()
        draining = asyncio.create_task(dbos.drain())
        await began.wait()
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        may_end.set()
        assert await handle.result() == 1


def test_a_connection_is_for_inline_and_inline_for_a_connection(database: TestDatabase) -> None:
    engine = database.make_engine()
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="inline=True"):
        DBOS(name="shop").launch(connection)
    with pytest.raises(ConfigurationError, match="Connection"):
        DBOS(name="shop").launch(engine, inline=True)
    with pytest.raises(NotLaunchedError, match="drain"):
        DBOS(engine, name="shop").drain()


def test_a_connection_without_transactions_is_refused(database: TestDatabase) -> None:
    if database.backend != POSTGRESQL:
        pytest.skip("the engine of SQLite begins also then")
    autocommit = database.make_engine().execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        DBOS(name="shop").launch(connection, inline=True)
