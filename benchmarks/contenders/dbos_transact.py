"""DBOS Transact with its documented defaults; nothing below a warning is logged.

It is not installed where we are, so its types are unknown here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from benchmarks.application import Item, create_tables, with_driver
from benchmarks.tasks import Task
from benchmarks.worker import Stopwatch, main

dbos: Any = import_module("dbos")
DBOS = dbos.DBOS


def work(task: Task, stopwatch: Stopwatch) -> None:
    """Do the task on DBOS; transactional steps are those of its SQLAlchemy datasource."""
    create_tables(with_driver(task.url, "postgresql+psycopg"))
    DBOS(config={"name": "benchmark", "system_database_url": task.url, "log_level": "WARNING"})
    try:
        if task.is_async:
            asyncio.run(_work_async(task, stopwatch))
        else:
            _work(task, stopwatch)
    finally:
        DBOS.destroy()


def _work(task: Task, stopwatch: Stopwatch) -> None:
    step = _transaction(task.url) if task.is_transactional else DBOS.step()(_number)

    def body(steps: int) -> int:
        return sum(step(number) for number in range(steps))

    workflow = DBOS.workflow()(body)
    DBOS.launch()
    for _ in range(10):
        DBOS.start_workflow(workflow, task.steps).get_result()
        workflow(task.steps)
    with stopwatch:
        if task.is_concurrent:
            handles = [DBOS.start_workflow(workflow, task.steps) for _ in range(task.workflows)]
            for handle in handles:
                handle.get_result()
        else:
            for _ in range(task.workflows):
                workflow(task.steps)


async def _work_async(task: Task, stopwatch: Stopwatch) -> None:
    step = await _async_transaction(task.url) if task.is_transactional else DBOS.step()(_number_async)

    async def body(steps: int) -> int:
        total = 0
        for number in range(steps):
            total += await step(number)
        return total

    workflow = DBOS.workflow()(body)

    async def run() -> None:
        handle = await DBOS.start_workflow_async(workflow, task.steps)
        await handle.get_result()

    DBOS.launch()
    for _ in range(10):
        await run()
    with stopwatch:
        if task.is_concurrent:
            await asyncio.gather(*(run() for _ in range(task.workflows)))
        else:
            for _ in range(task.workflows):
                await workflow(task.steps)


def _number(number: int) -> int:
    return number


async def _number_async(number: int) -> int:
    return number


def _transaction(url: str) -> Callable[[int], int]:
    datasource = dbos.SQLAlchemyDatasource.create(url)

    def insert(number: int) -> int:
        datasource.sql_session().add(Item(number=number))
        return number

    # The isolation of PostgreSQL and of our side; its own default, SERIALIZABLE, costs it more.
    decorated: Callable[[int], int] = datasource.transaction(insert, isolation_level="READ COMMITTED")
    return decorated


async def _async_transaction(url: str) -> Callable[[int], Awaitable[int]]:
    datasource = await dbos.AsyncSQLAlchemyDatasource.create(url)

    async def insert(number: int) -> int:
        datasource.sql_session().add(Item(number=number))
        return number

    decorated: Callable[[int], Awaitable[int]] = datasource.transaction(insert, isolation_level="READ COMMITTED")
    return decorated


if __name__ == "__main__":
    main(work)
