"""Time limits of steps, for coroutines: cancelled where they await, or given up in their thread."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from dbos_orm import AsyncDBOS, Retry, WorkflowState
from dbos_orm.errors import StepTimeoutError, WorkflowCancelledError
from tests.integration.shop import Held
from tests.processes import PATIENCE, eventually_async

SHORT = 0.05
TWICE = Retry(max_attempts=2, backoff=0)


@pytest.mark.parametrize("does", ["passes the cancellation on", "returns a value", "raises another error"])
async def test_a_coroutine_is_cancelled_where_it_awaits_and_is_late_whatever_it_does(
    async_dbos: AsyncDBOS, does: str
) -> None:
    dbos, seen = async_dbos, list[str]()

    @dbos.step(name="fetch", timeout=SHORT)
    async def fetch() -> str:
        try:
            await asyncio.sleep(PATIENCE * 10)
        except asyncio.CancelledError:
            seen.append(f"cancelled {dbos.current.is_cancelled}")
            if does == "raises another error":
                raise KeyError("late") from None
            if does != "returns a value":
                raise
        return "late"

    @dbos.workflow
    async def work() -> str:
        try:
            return await fetch()
        except StepTimeoutError as error:
            return error.step

    assert await work.options(workflow_id="w")() == "fetch"
    await asyncio.sleep(0)  # the caller's task is not left cancelled
    assert seen == ["cancelled True"]
    with pytest.raises(StepTimeoutError):
        await fetch()
    assert [type(step.error) for step in await dbos.handle("w").steps()] == [StepTimeoutError]


async def test_a_late_coroutine_is_tried_again(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step(timeout=SHORT, retry=TWICE)
    async def fetch() -> int:
        if dbos.current.attempt == 1:
            await dbos.sleep(PATIENCE * 10)
        return dbos.current.attempt

    @dbos.workflow
    async def work() -> int:
        return await fetch()

    assert await work() == 2


async def test_a_plain_function_of_a_coroutine_is_given_up(async_dbos: AsyncDBOS) -> None:
    dbos, held = async_dbos, Held()

    @dbos.step(name="fetch", timeout=SHORT)
    def fetch() -> str:
        held.hold()
        held.ended.append(dbos.current.is_cancelled)
        return "late"

    @dbos.step
    async def outer() -> None:
        await fetch()

    @dbos.workflow
    async def work() -> list[str]:
        late = []
        for call in (fetch, outer):
            try:
                await call()
            except StepTimeoutError as error:
                late.append(error.step)
        return late

    assert await work() == ["fetch", "fetch"]
    held.release.set()
    await eventually_async(lambda: held.ended == [True, True])


async def test_the_function_of_a_limited_step_runs_in_a_thread(async_dbos: AsyncDBOS) -> None:
    dbos, here = async_dbos, threading.get_ident()

    @dbos.step(timeout=PATIENCE)
    def look() -> bool:
        return threading.get_ident() != here

    @dbos.workflow
    async def work() -> bool:
        return await look()

    assert await work()
    assert await look()
    assert await look.options(timeout=None)()


async def test_a_plain_call_in_a_transaction_has_no_limit_of_its_own(async_dbos: AsyncDBOS) -> None:
    dbos, released = async_dbos, asyncio.Event()

    @dbos.step(timeout=0.001)
    async def look() -> str:
        await released.wait()
        return "waited"

    @dbos.transaction
    async def ask(session: AsyncSession) -> str:
        asyncio.get_running_loop().call_later(SHORT, released.set)
        return await look()

    @dbos.workflow
    async def work() -> str:
        return await ask()

    assert await work() == "waited"


async def test_a_cancellation_from_outside_is_not_taken_for_the_time_limit(async_dbos: AsyncDBOS) -> None:
    dbos, is_running, runs = async_dbos, asyncio.Event(), list[int]()

    @dbos.step(timeout=PATIENCE)
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


async def test_a_cancellation_from_outside_counts_also_when_the_time_is_up(async_dbos: AsyncDBOS) -> None:
    dbos, is_late = async_dbos, asyncio.Event()

    @dbos.step(timeout=SHORT)
    async def wait() -> None:
        try:
            await asyncio.sleep(PATIENCE * 10)
        except asyncio.CancelledError:
            is_late.set()
            await asyncio.sleep(PATIENCE * 10)

    task = asyncio.create_task(wait())
    await is_late.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_a_cancelled_workflow_cancels_its_limited_step(async_dbos: AsyncDBOS, kind: str) -> None:
    dbos, held = async_dbos, Held()

    if kind == "coroutine":

        @dbos.step(timeout=PATIENCE * 2)
        async def wait() -> None:
            held.began.set()
            await asyncio.sleep(PATIENCE * 10)
    else:

        @dbos.step(timeout=PATIENCE * 2)
        def wait() -> None:
            held.hold()
            held.ended.append(dbos.current.is_cancelled)

    @dbos.workflow
    async def work() -> None:
        await wait()

    handle = await work.start()
    assert await asyncio.to_thread(held.began.wait, PATIENCE)
    await handle.cancel()
    with pytest.raises(WorkflowCancelledError):
        await handle.result(PATIENCE)
    assert await handle.status() is WorkflowState.CANCELLED
    held.release.set()
    await eventually_async(lambda: held.ended == ([] if kind == "coroutine" else [True]))
