"""The end of a workflow that has tasks: none goes on behind it, and none is lost without a word."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from dbos_orm import AsyncDBOS, WorkflowState
from dbos_orm._context import Run
from dbos_orm.errors import NotLaunchedError, WorkflowCancelledError, WorkflowTimeoutError
from tests.databases import TestDatabase
from tests.integration.shop import SOON, Interruption, OutOfStockError
from tests.processes import PATIENCE, eventually_async

SHORT = 0.15
LONG = PATIENCE * 10


class Parts:
    """Coroutines that a workflow opens: one in a step, one in a sleep, one in its own code, one that ends."""

    def __init__(self, dbos: AsyncDBOS) -> None:
        self.running: set[str] = set()
        self.ended: set[str] = set()
        self.dbos = dbos

        @dbos.step(name="wait")
        async def wait() -> None:
            self.running.add("step")
            await asyncio.sleep(LONG)

        @dbos.step(name="pass")
        async def quick() -> None: ...

        self._wait, self._quick = wait, quick

    async def part(self, name: str) -> str:
        try:
            await self._quick()
            if name == "step":
                await self._wait()
            self.running.add(name)
            if name == "sleep":
                await self.dbos.sleep(LONG)
            elif name == "code":
                await asyncio.sleep(LONG)
            return name
        finally:
            self.ended.add(name)

    async def wait_until_running(self) -> None:
        await eventually_async(lambda: self.running == {"step", "sleep", "code", "end"})

    @property
    def all(self) -> list[Coroutine[Any, Any, str]]:
        return [self.part(name) for name in ("step", "sleep", "code", "end")]


@pytest.fixture(autouse=True)
async def no_complaints(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Nothing is said by asyncio of tasks that were destroyed, or of errors that were never retrieved."""
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def run_of(dbos: AsyncDBOS, workflow_id: str) -> Run | None:
    return dbos._runtime.bound("test").runs.get(workflow_id)


@pytest.mark.parametrize("opens", ["gather", "task"])
@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_an_ended_workflow_ends_its_tasks(async_dbos: AsyncDBOS, how: str, opens: str) -> None:
    parts, dbos = Parts(async_dbos), async_dbos

    @dbos.workflow
    async def work() -> None:
        if opens == "gather":
            await dbos.gather(*parts.all)
        else:
            for task in [dbos.task(part) for part in parts.all]:
                await task

    handle = await work.options(workflow_id="w", timeout=2 * SHORT if how == "deadline" else None).start()
    await parts.wait_until_running()
    if how == "cancel":
        await handle.cancel()
    with pytest.raises(WorkflowTimeoutError if how == "deadline" else WorkflowCancelledError):
        await handle.result(PATIENCE)
    await eventually_async(lambda: run_of(dbos, "w") is None)
    assert parts.ended == {"step", "sleep", "code", "end"}
    assert await handle.status() is WorkflowState.CANCELLED
    assert {step.name for step in await handle.steps()} == {"pass", "sleep"}


async def test_a_workflow_that_raises_cancels_its_tasks(async_dbos: AsyncDBOS) -> None:
    parts, dbos = Parts(async_dbos), async_dbos

    @dbos.workflow
    async def work() -> None:
        opened = dbos.gather(*parts.all)
        await parts.wait_until_running()
        assert not opened.done()
        raise OutOfStockError("tea", left=0)

    with pytest.raises(OutOfStockError):
        await work.options(workflow_id="w")()
    assert parts.ended == {"step", "sleep", "code", "end"}
    assert await dbos.handle("w").status() is WorkflowState.ERROR


async def test_a_workflow_that_returns_waits_for_its_tasks(async_dbos: AsyncDBOS) -> None:
    dbos, may_end = async_dbos, asyncio.Event()

    @dbos.step
    async def fetch(name: str) -> str:
        await may_end.wait()
        return name

    async def inner() -> None:
        await fetch("inner")

    async def outer() -> None:
        await fetch("outer")
        dbos.task(inner())

    @dbos.workflow
    async def work() -> str:
        dbos.task(outer())
        return "done"

    handle = await work.options(workflow_id="w").start()
    with pytest.raises(TimeoutError):
        await handle.result(SHORT)
    may_end.set()
    assert await handle.result(PATIENCE) == "done"
    assert {step.path: step.output for step in await handle.steps()} == {"1.1": "outer", "1.2.1": "inner"}


async def test_a_workflow_that_has_returned_can_be_cancelled_while_its_tasks_work(async_dbos: AsyncDBOS) -> None:
    parts, dbos, seen = Parts(async_dbos), async_dbos, list[str]()

    @dbos.workflow
    async def work() -> None:
        dbos.gather(*parts.all)
        await parts.wait_until_running()
        seen.append("returned")

    handle = await work.options(workflow_id="w").start()
    await eventually_async(lambda: seen == ["returned"])
    await handle.cancel()
    with pytest.raises(WorkflowCancelledError):
        await handle.result(PATIENCE)
    await eventually_async(lambda: run_of(dbos, "w") is None)
    assert parts.ended == {"step", "sleep", "code", "end"}


async def test_an_error_that_nobody_awaited_is_logged(async_dbos: AsyncDBOS, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise OutOfStockError("tea", left=0)

    @async_dbos.workflow
    async def work() -> str:
        async_dbos.task(fail())
        return "done"

    assert await work() == "done"
    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert ["without awaiting a task that raised OutOfStockError" in message for message in messages] == [True]


@pytest.mark.parametrize("has_returned", [False, True])
async def test_a_caller_that_is_cancelled_hands_the_run_over_without_its_tasks(
    async_dbos: AsyncDBOS, has_returned: bool
) -> None:
    parts, dbos, runs = Parts(async_dbos), async_dbos, list[int]()

    @dbos.workflow
    async def work() -> int:
        runs.append(1)
        if len(runs) == 1:
            opened = dbos.gather(*parts.all)
            if not has_returned:
                await opened
        return len(runs)

    task = asyncio.create_task(work.options(workflow_id="w")())
    await parts.wait_until_running()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parts.ended == {"step", "sleep", "code", "end"}
    assert await dbos.handle("w").result(PATIENCE) == 2


async def test_an_exit_in_a_task_hands_the_run_over(async_dbos: AsyncDBOS) -> None:
    parts, dbos, runs = Parts(async_dbos), async_dbos, list[int]()

    async def leave() -> None:
        await parts.wait_until_running()
        raise Interruption

    @dbos.workflow
    async def work() -> int:
        runs.append(1)
        if len(runs) == 1:
            await dbos.gather(*parts.all, leave(), return_exceptions=True)
        return len(runs)

    with pytest.raises(Interruption):
        await work.options(workflow_id="w")()
    assert parts.ended == {"step", "sleep", "code", "end"}
    assert await dbos.handle("w").result(PATIENCE) == 2


async def test_a_shutdown_ends_tasks_and_another_launch_continues_them(database: TestDatabase) -> None:
    dbos = AsyncDBOS(database.make_async_engine(), name="shop", config=SOON)
    parts, may_end = Parts(dbos), asyncio.Event()

    @dbos.workflow
    async def work() -> list[str]:
        if may_end.is_set():
            return await dbos.gather(*[parts.part("end") for _ in range(2)])
        return await dbos.gather(*parts.all)

    async def call() -> object:
        try:
            return await work.options(workflow_id="w")()
        except NotLaunchedError as error:
            return type(error)

    await dbos.launch()
    caller = asyncio.create_task(call())
    await parts.wait_until_running()
    await dbos.shutdown(0)
    assert await caller is NotLaunchedError
    assert parts.ended == {"step", "sleep", "code", "end"}
    may_end.set()
    async with dbos.launch():
        assert await dbos.handle("w").result(PATIENCE) == ["end", "end"]


async def test_gather_can_be_given_up(async_dbos: AsyncDBOS) -> None:
    parts, dbos = Parts(async_dbos), async_dbos

    @dbos.workflow
    async def work() -> str:
        opened = dbos.gather(*parts.all)
        await parts.wait_until_running()
        try:
            async with asyncio.timeout(0):
                await opened
        except TimeoutError:
            assert parts.ended == {"step", "sleep", "code", "end"}
            assert opened.cancelled()
            assert not opened.cancel()
            return "given up"
        return "never"

    assert await work() == "given up"


async def test_a_lost_run_records_nothing_of_its_tasks(async_dbos: AsyncDBOS) -> None:
    parts, dbos = Parts(async_dbos), async_dbos

    @dbos.workflow(timeout=timedelta(seconds=LONG))
    async def work() -> str:
        if parts.running:
            return "again"
        await dbos.gather(*parts.all)
        return "never"

    handle = await work.options(workflow_id="w").start()
    await parts.wait_until_running()
    run = run_of(dbos, "w")
    assert run is not None
    dbos._runtime.bound("test").runs.drop(run)
    assert await handle.result(PATIENCE) == "again"
    assert parts.ended == {"step", "sleep", "code", "end"}
    assert {step.name for step in await handle.steps()} == {"pass", "sleep"}
