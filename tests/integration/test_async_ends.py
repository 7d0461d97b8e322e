"""The end of coroutines from outside: cancelled where they await, handed over, launched again."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dbos_orm import AsyncDBOS, WorkflowState, WorkflowStatus
from dbos_orm.errors import (
    MaxRecoveryAttemptsExceededError,
    NotLaunchedError,
    WorkflowCancelledError,
    WorkflowTimeoutError,
)
from tests.databases import TestDatabase
from tests.integration.shop import SOON, count_of, launched_async, reading
from tests.processes import PATIENCE, eventually_async

SHORT = 0.15


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_a_step_is_cancelled_where_it_awaits(async_dbos: AsyncDBOS, how: str) -> None:
    dbos, is_running, seen = async_dbos, asyncio.Event(), list[str]()

    @dbos.step
    async def wait() -> None:
        is_running.set()
        try:
            await asyncio.sleep(PATIENCE * 10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @dbos.workflow
    async def work() -> None:
        try:
            await wait()
        except Exception as error:
            seen.append(f"swallowed {error!r}")
        finally:
            seen.append("unwound")

    handle = await work.options(timeout=SHORT if how == "timeout" else None).start()
    await is_running.wait()
    if how == "cancel":
        await handle.cancel()
    with pytest.raises(WorkflowCancelledError if how == "cancel" else WorkflowTimeoutError):
        await handle.result(PATIENCE)
    await eventually_async(lambda: seen == ["cancelled", "unwound"])
    assert await handle.status() is WorkflowState.CANCELLED


async def test_a_cancel_takes_children_along(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    dbos = async_dbos

    @dbos.workflow
    async def nap() -> None:
        await dbos.sleep(PATIENCE * 10)

    @dbos.workflow
    async def parent() -> None:
        await nap()

    handle = await parent.options(workflow_id="p").start()

    await eventually_async(lambda: count_of(database, WorkflowStatus, workflow_id="p-1"))
    await handle.cancel()
    for workflow_id in ("p", "p-1"):
        with pytest.raises(WorkflowCancelledError):
            await dbos.handle(workflow_id).result(PATIENCE)


async def test_a_direct_caller_at_the_deadline_gets_the_timeout(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.workflow(timeout=SHORT)
    async def nap() -> None:
        await dbos.sleep(PATIENCE * 10)

    with pytest.raises(WorkflowTimeoutError):
        await nap()
    # The caller's task is not left cancelled.
    await asyncio.sleep(0)


async def test_a_task_that_is_cancelled_from_outside_hands_its_run_over(async_dbos: AsyncDBOS) -> None:
    dbos, is_running, runs = async_dbos, asyncio.Event(), list[int]()

    @dbos.step
    async def wait() -> str:
        runs.append(1)
        is_running.set()
        await asyncio.sleep(PATIENCE * 10 if len(runs) == 1 else 0)
        return "done"

    @dbos.workflow
    async def work() -> str:
        return await wait()

    task = asyncio.create_task(work.options(workflow_id="w")())
    await is_running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await dbos.handle("w").result(PATIENCE) == "done"
    assert len(runs) == 2
    assert [step.attempts for step in await dbos.handle("w").steps()] == [1]


# -- life cycle ----------------------------------------------------------------------------------


async def test_launched_again_and_used_outside(database: TestDatabase) -> None:
    dbos = AsyncDBOS(database.make_async_engine(), name="shop", config=SOON)

    @dbos.workflow
    async def work(number: int) -> int:
        return number

    for number in range(2):
        async with dbos.launch():
            assert await work(number) == number
        assert not dbos.is_launched
    with pytest.raises(NotLaunchedError):
        await work(3)


async def test_what_does_not_end_in_time_is_handed_over(database: TestDatabase) -> None:
    dbos, is_running, runs = AsyncDBOS(database.make_async_engine(), name="shop", config=SOON), asyncio.Event(), [0]

    @dbos.workflow
    async def work() -> str:
        runs[0] += 1
        is_running.set()
        if runs == [1]:
            await dbos.sleep(PATIENCE * 10)
        return "done"

    @dbos.workflow
    async def quick() -> str:
        return "quick"

    await dbos.launch()
    await quick.start()
    await work.options(workflow_id="w").start()
    await is_running.wait()
    await dbos.shutdown(0)
    with reading(database) as session:
        rows = session.connection().exec_driver_sql("SELECT status FROM dbos_workflow_status WHERE workflow_id = 'w'")
        assert rows.scalar_one() == "ENQUEUED"


async def test_nothing_of_a_launch_is_left(database: TestDatabase) -> None:
    before = set(threading.enumerate())
    async with AsyncDBOS(database.make_async_engine(), name="shop", config=SOON) as dbos:

        @dbos.workflow
        async def work() -> None: ...

        await work()
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("dbos")]
    assert left == []


async def test_a_workflow_that_awaits_a_task_which_it_cancelled_does_not_go_on_for_ever(database: TestDatabase) -> None:
    async with launched_async(database) as dbos:
        runs = []

        @dbos.workflow(max_recovery_attempts=2)
        async def work() -> None:
            runs.append(dbos.current.workflow_id)
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task

        handle = await work.start()
        with pytest.raises(MaxRecoveryAttemptsExceededError):
            await handle.result(timeout=PATIENCE)
        assert len(runs) == 3
