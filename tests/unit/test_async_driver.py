"""What the driver for coroutines does to the task that called it."""

from __future__ import annotations

import asyncio
from typing import Any

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Frame, Launch, Run, RunningStep, Scope, StepKey
from dbos_orm._drivers.async_driver import AsyncDriver
from dbos_orm._flows.effects import Invoke
from dbos_orm._outcomes import Raised, Returned
from dbos_orm.errors import WorkflowCancelled

NOTHING: Any = None


def driver() -> AsyncDriver:
    return AsyncDriver(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


def running_step() -> Frame:
    launch = Launch("executor", lease_ends=steady_seconds() + 600)
    run = Run("w", "workflow", "token", launch, is_async=True, generation="g")
    return Frame(run, Scope("", None), RunningStep(StepKey("", 1), "step", 1, 1, transactional=False))


async def test_a_step_is_cancelled_where_it_awaits_when_its_run_is_ended() -> None:
    frame = running_step()

    async def step() -> None:
        frame.run.end_with(WorkflowCancelled("w"))
        await asyncio.Event().wait()

    outcome = await driver().perform(Invoke(step, (), {}, frame))

    assert isinstance(outcome, Raised)
    assert outcome.error is frame.run.stop


async def test_the_end_of_a_run_does_not_cancel_what_its_caller_does_after_the_step() -> None:
    frame = running_step()

    async def step() -> str:
        frame.run.end_with(WorkflowCancelled("w"))
        return "returned before it could be cancelled"

    outcome = await driver().perform(Invoke(step, (), {}, frame))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert isinstance(outcome, Returned)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
