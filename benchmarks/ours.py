"""The same work, as a user of this library would write it."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import make_url

from dbos_orm import DBOS, AsyncDBOS


class Sync:
    """Workflows of plain steps on ``DBOS``."""

    def __init__(self, url: str) -> None:
        self._dbos = dbos = DBOS(url, name="benchmark")

        @dbos.step
        def step(number: int) -> int:
            return number

        @dbos.workflow
        def workflow(steps: int) -> int:
            return sum(step(number) for number in range(steps))

        self._workflow = workflow

    def serial(self, workflows: int, steps: int) -> float:
        """Seconds for direct calls, one after another."""
        with self._dbos.launch(migrate=True):
            self._workflow(1)
            began = time.perf_counter()
            for _ in range(workflows):
                self._workflow(steps)
            return time.perf_counter() - began

    def concurrent(self, workflows: int, steps: int) -> float:
        """Seconds from the first start to the last result."""
        with self._dbos.launch(migrate=True):
            self._workflow(1)
            began = time.perf_counter()
            handles = [self._workflow.start(steps) for _ in range(workflows)]
            for handle in handles:
                handle.result()
            return time.perf_counter() - began


async def concurrent_async(url: str, workflows: int, steps: int) -> float:
    """Seconds for that many concurrent calls on ``AsyncDBOS``."""
    adbos = AsyncDBOS(make_url(url).set(drivername="postgresql+asyncpg"), name="benchmark")

    @adbos.step
    async def step(number: int) -> int:
        return number

    @adbos.workflow
    async def workflow(steps: int) -> int:
        total = 0
        for number in range(steps):
            total += await step(number)
        return total

    async with adbos.launch(migrate=True):
        await workflow(1)
        began = time.perf_counter()
        await asyncio.gather(*(workflow(steps) for _ in range(workflows)))
        return time.perf_counter() - began
