"""This library, with its documented defaults, as a user would write it."""

from __future__ import annotations

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from benchmarks.application import Item, create_tables, with_driver
from benchmarks.tasks import Task
from benchmarks.worker import Stopwatch, main
from dbos_orm import DBOS, AsyncDBOS


def work(task: Task, stopwatch: Stopwatch) -> None:
    """Do the task on ``DBOS`` or ``AsyncDBOS``."""
    create_tables(with_driver(task.url, "postgresql+psycopg2"))
    if task.is_async:
        asyncio.run(_work_async(task, stopwatch))
    else:
        _work(task, stopwatch)


def _work(task: Task, stopwatch: Stopwatch) -> None:
    dbos = DBOS(with_driver(task.url, "postgresql+psycopg2"), name="benchmark")

    @dbos.step
    def step(number: int) -> int:
        return number

    @dbos.transaction
    def transaction(session: Session, number: int) -> int:
        session.add(Item(number=number))
        return number

    @dbos.workflow
    def workflow(steps: int) -> int:
        return sum(step(number) for number in range(steps))

    @dbos.workflow
    def transactional_workflow(steps: int) -> int:
        return sum(transaction(number) for number in range(steps))

    chosen = transactional_workflow if task.is_transactional else workflow
    with dbos.launch(migrate=True):
        for _ in range(10):
            chosen.start(task.steps).result()
            chosen(task.steps)
        with stopwatch:
            if task.is_concurrent:
                handles = [chosen.start(task.steps) for _ in range(task.workflows)]
                for handle in handles:
                    handle.result()
            else:
                for _ in range(task.workflows):
                    chosen(task.steps)


async def _work_async(task: Task, stopwatch: Stopwatch) -> None:
    dbos = AsyncDBOS(with_driver(task.url, "postgresql+asyncpg", "sqlite+aiosqlite"), name="benchmark")

    @dbos.step
    async def step(number: int) -> int:
        return number

    @dbos.transaction
    async def transaction(session: AsyncSession, number: int) -> int:
        session.add(Item(number=number))
        return number

    @dbos.workflow
    async def workflow(steps: int) -> int:
        total = 0
        for number in range(steps):
            total += await step(number)
        return total

    @dbos.workflow
    async def transactional_workflow(steps: int) -> int:
        total = 0
        for number in range(steps):
            total += await transaction(number)
        return total

    chosen = transactional_workflow if task.is_transactional else workflow
    async with dbos.launch(migrate=True):
        for _ in range(10):
            await chosen(task.steps)
        with stopwatch:
            if task.is_concurrent:
                await asyncio.gather(*(chosen(task.steps) for _ in range(task.workflows)))
            else:
                for _ in range(task.workflows):
                    await chosen(task.steps)


if __name__ == "__main__":
    main(work)
