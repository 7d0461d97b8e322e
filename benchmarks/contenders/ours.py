"""This library, with its documented defaults, as a user would write it."""

from __future__ import annotations

import asyncio

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

    def run(workflows: int) -> None:
        if task.is_concurrent:
            handles = [chosen.start(task.steps) for _ in range(workflows)]
            for handle in handles:
                handle.result()
        else:
            for _ in range(workflows):
                chosen(task.steps)

    with dbos.launch(migrate=True):
        run(task.warm_up)
        with stopwatch:
            run(task.workflows)


async def _work_async(task: Task, stopwatch: Stopwatch) -> None:
    assert not task.is_transactional
    dbos = AsyncDBOS(with_driver(task.url, "postgresql+asyncpg", "sqlite+aiosqlite"), name="benchmark")

    @dbos.step
    async def step(number: int) -> int:
        return number

    @dbos.workflow
    async def workflow(steps: int) -> int:
        total = 0
        for number in range(steps):
            total += await step(number)
        return total

    async def run(workflows: int) -> None:
        if task.is_concurrent:
            await asyncio.gather(*(workflow(task.steps) for _ in range(workflows)))
        else:
            for _ in range(workflows):
                await workflow(task.steps)

    async with dbos.launch(migrate=True):
        await run(task.warm_up)
        with stopwatch:
            await run(task.workflows)


if __name__ == "__main__":
    main(work)
