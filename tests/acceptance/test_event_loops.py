"""Event loops that are blocked, and servers that cancel their tasks: neither is an outcome of a workflow."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from dbos_orm import AsyncDBOS, Config, WorkflowState
from tests.acceptance.books import QUICK, SHORT, World
from tests.acceptance.keepers import keeper
from tests.acceptance.ledger import Ledger

PLACES = ["in a step", "in the body", "while it sleeps", "in a child", "in a transaction"]


class Waiting:
    """Workflows that wait in their first execution, and return in any later one."""

    def __init__(self, ledger: Ledger, config: Config) -> None:
        self.dbos = dbos = AsyncDBOS(ledger.database.async_url, name="books", config=config)
        self.reached = asyncio.Event()
        self.executions = 0

        @dbos.step(name="step")
        async def step() -> str:
            return await self.wait()

        @dbos.transaction(name="transaction")
        async def transaction(session: AsyncSession) -> str:
            return await self.wait()

        @dbos.workflow(name="child")
        async def child() -> str:
            return await step()

        @dbos.workflow(name="workflow")
        async def workflow(place: str) -> str:
            if place == "in a step":
                return await step()
            if place == "in a transaction":
                return await transaction()
            if place == "in a child":
                return await child()
            if place == "while it sleeps":
                self.reached.set()
                self.executions += 1
                await dbos.sleep(1)
                return "done"
            return await self.wait()

        self.workflow = workflow

    async def wait(self) -> str:
        self.executions += 1
        self.reached.set()
        if self.executions == 1:
            await asyncio.Event().wait()
        return "done"


@pytest.mark.parametrize("place", PLACES)
async def test_a_cancelled_task_hands_its_run_over_and_records_nothing(ledger: Ledger, place: str) -> None:
    waiting = Waiting(ledger, QUICK)
    async with waiting.dbos as dbos:
        task = asyncio.create_task(waiting.workflow.options(workflow_id="run")(place))
        await waiting.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Somebody continues it: here it is this very process, which is the first to look.
        assert await dbos.handle("run").result(20) == "done"
    assert waiting.executions == 2
    assert ledger.row("run").recovery_attempts == 0
    assert ledger.errors_of_steps() == []
    assert set(ledger.statuses().values()) == {WorkflowState.SUCCESS}


@pytest.mark.parametrize("place", PLACES)
async def test_a_server_that_is_shut_down_leaves_its_runs_to_the_next_one(ledger: Ledger, place: str) -> None:
    # Its one tick is at the launch, and it hears of nothing: until the end it does not take back what it handed over.
    waiting = Waiting(ledger, Config(tick=600))

    async def serve() -> None:
        async with waiting.dbos:
            hints = waiting.dbos._runtime.bound("test").hints
            hints.dispatcher = hints.look_everywhere = None
            await waiting.workflow.options(workflow_id="run")(place)

    server = asyncio.create_task(serve())
    await waiting.reached.wait()
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server
    status = ledger.row("run").status
    assert status == WorkflowState.ENQUEUED
    assert [name for _, name in ledger.steps("run")] in ([], ["sleep"], ["child"])
    assert ledger.executors() == {}
    async with waiting.dbos as dbos:
        assert await dbos.handle("run").result(20) == "done"
    assert waiting.executions == 2
    assert ledger.row("run").recovery_attempts == 0
    assert ledger.errors_of_steps() == []


async def test_a_blocked_event_loop_does_not_cost_the_lease(ledger: Ledger, world: World) -> None:
    # Rule 21: heartbeats have a loop and a thread of their own.
    dbos = AsyncDBOS(ledger.database.async_url, name="books", config=SHORT)

    @dbos.step
    async def block() -> None:
        time.sleep(3 * 0.8)  # noqa: ASYNC251  # the mistake that this test is about

    @dbos.workflow
    async def workflow() -> str:
        await block()
        return "done"

    with keeper("sync", ledger.database.url, world, config=SHORT) as observer:
        async with dbos:
            name = dbos._runtime.launch.executor_id if dbos._runtime.launch else ""
            assert await workflow.options(workflow_id="run")() == "done"
            assert ledger.executors() == {name: True, observer.executor_id: True}
    row = ledger.row("run")
    assert (row.executor_id, row.recovery_attempts) == (name, 0)
