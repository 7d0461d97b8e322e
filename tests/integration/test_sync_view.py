"""Plain functions in an application of coroutines, and blocking operations on the thread of an event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from dbos_orm import DBOS, AsyncDBOS, Config, WorkflowState
from dbos_orm.errors import ConfigurationError, StepOutsideScopeError
from tests.databases import TestDatabase
from tests.integration.shop import Interruption, Item, launched_async, names_of_items
from tests.processes import PATIENCE, eventually


async def test_plain_workflows_run_on_threads_of_the_application(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    sync = async_dbos.sync

    @sync.step
    def where() -> str:
        return threading.current_thread().name

    @sync.transaction(sessionmaker=sessionmaker(database.make_engine()))
    def store(session: Session, name: str) -> None:
        session.add(Item(name=name))

    @sync.workflow(name="work")
    def work(name: str) -> str:
        store(name)
        sync.sleep(0.01)
        return where()

    assert not (await asyncio.to_thread(work, "tea")).startswith("dbos-")
    handle = await asyncio.to_thread(work.start, "milk")
    assert (await asyncio.to_thread(handle.result, PATIENCE)).startswith("dbos-shop")
    assert await async_dbos.handle(handle.workflow_id).status() is WorkflowState.SUCCESS
    assert names_of_items(database) == ["milk", "tea"]


async def test_a_plain_workflow_is_continued_on_a_thread(database: TestDatabase) -> None:
    def application(ends: bool) -> tuple[AsyncDBOS, Any]:
        dbos = AsyncDBOS(database.make_async_engine(), name="shop", config=Config(tick=0.05))

        @dbos.sync.workflow(name="work")
        def work() -> str:
            if ends:
                raise Interruption
            return threading.current_thread().name

        return dbos, work

    dbos, work = application(ends=True)
    async with dbos:
        with pytest.raises(Interruption):
            await asyncio.to_thread(work.options(workflow_id="w"))
    dbos, _ = application(ends=False)
    async with dbos:
        assert (await dbos.handle("w").result(PATIENCE)).startswith("dbos-shop")


async def test_on_the_thread_of_a_loop_the_view_raises_and_does_nothing(
    async_dbos: AsyncDBOS, database: TestDatabase
) -> None:
    @async_dbos.sync.workflow
    def work() -> None: ...

    for attempt in (work, work.start, work.handle("w").result, async_dbos.sync.handle("w").status):
        with pytest.raises(ConfigurationError, match=r"use AsyncDBOS, or await asyncio\.to_thread"):
            attempt()


async def test_a_submitted_call_is_not_awaited_on_the_thread_of_a_loop(async_dbos: AsyncDBOS) -> None:
    let_go = threading.Event()

    @async_dbos.sync.step
    def look() -> int:
        let_go.wait(PATIENCE)
        return 1

    submitted = look.submit()
    with pytest.raises(ConfigurationError, match=r"await asyncio\.to_thread"):
        submitted.result()
    let_go.set()
    assert await asyncio.to_thread(submitted.result) == 1
    assert submitted.result() == 1


async def test_a_thread_of_a_coroutine_has_no_place_in_its_history(async_dbos: AsyncDBOS) -> None:
    @async_dbos.sync.step
    def look() -> int:
        return 1

    @async_dbos.sync.workflow
    def child() -> int:
        return look()

    @async_dbos.workflow
    async def work() -> int:
        for call in (look, child):
            with pytest.raises(StepOutsideScopeError):
                await asyncio.to_thread(call)
        return 1

    assert await work() == 1


async def test_a_busy_pool_of_threads_does_not_hold_up_coroutines(database: TestDatabase) -> None:
    config = Config(tick=0.05, worker_threads=1)
    async with launched_async(database, config=config) as dbos:
        go_on, began = threading.Event(), threading.Event()

        @dbos.sync.workflow(name="block")
        def block() -> None:
            began.set()
            assert go_on.wait(PATIENCE)

        @dbos.workflow(name="work")
        async def work() -> str:
            return "done"

        handle = await asyncio.to_thread(block.start)
        eventually(began.is_set)
        bound = AsyncDBOS(database.make_async_engine(), name="shop")
        waiting = bound.sync.workflow(name="block")(lambda: None)

        @bound.workflow(name="work", version=work.version)
        async def same() -> str:
            return ""

        second = await asyncio.to_thread(waiting.start)
        other = await same.start()
        assert await dbos.handle(other.workflow_id).result(PATIENCE) == "done"
        assert await dbos.handle(second.workflow_id).status() is WorkflowState.ENQUEUED
        go_on.set()
        await asyncio.to_thread(handle.result, PATIENCE)
        assert await dbos.handle(second.workflow_id).result(PATIENCE) is None
        await bound.shutdown(0)


def test_a_transaction_of_the_view_needs_a_synchronous_sessionmaker() -> None:
    sync = AsyncDBOS(name="shop").sync
    with pytest.raises(ConfigurationError, match=r"@adbos\.sync\.transaction\(sessionmaker="):

        @sync.transaction
        def store(session: Session) -> None: ...

    with pytest.raises(ConfigurationError, match="use AsyncDBOS for async def"):

        @sync.workflow
        async def work() -> None: ...


async def test_a_blocking_call_that_would_stop_a_loop_is_refused(dbos: DBOS) -> None:
    @dbos.workflow
    def work() -> int:
        return 1

    @dbos.transaction
    def store(session: Session) -> None: ...

    for attempt in (work, work.start, store, dbos.handle("w").result):
        with pytest.raises(ConfigurationError, match=r"in a notebook, Config\(may_block_loop=True\)"):
            attempt()
    assert await asyncio.to_thread(work) == 1


async def test_a_notebook_may_block_its_loop(database: TestDatabase) -> None:
    with DBOS(database.make_engine(), name="shop", config=Config(may_block_loop=True)) as dbos:

        @dbos.workflow
        def work() -> int:
            return 1

        assert work() == 1
