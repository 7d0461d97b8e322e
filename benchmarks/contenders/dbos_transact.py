"""DBOS Transact with its documented defaults; nothing below a warning is logged.

It is not installed where we are, so its types are unknown here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
    step = _transaction(task) if task.is_transactional else DBOS.step()(_number)

    def body(steps: int) -> int:
        return sum(step(number) for number in range(steps))

    workflow = DBOS.workflow()(body)

    def run(workflows: int) -> None:
        if task.is_concurrent:
            handles = [DBOS.start_workflow(workflow, task.steps) for _ in range(workflows)]
            for handle in handles:
                handle.get_result()
        else:
            for _ in range(workflows):
                workflow(task.steps)

    DBOS.launch()
    run(task.warm_up)
    with stopwatch:
        run(task.workflows)


async def _work_async(task: Task, stopwatch: Stopwatch) -> None:
    assert not task.is_transactional
    step = DBOS.step()(_number_async)

    async def body(steps: int) -> int:
        total = 0
        for number in range(steps):
            total += await step(number)
        return total

    workflow = DBOS.workflow()(body)

    async def run(workflows: int) -> None:
        if task.is_concurrent:
            await asyncio.gather(*(workflow(task.steps) for _ in range(workflows)))
        else:
            for _ in range(workflows):
                await workflow(task.steps)

    DBOS.launch()
    await run(task.warm_up)
    with stopwatch:
        await run(task.workflows)


def _number(number: int) -> int:
    return number


async def _number_async(number: int) -> int:
    return number


def _transaction(task: Task) -> Callable[[int], int]:
    datasource = dbos.SQLAlchemyDatasource.create(task.url)

    def insert(number: int) -> int:
        datasource.sql_session().add(Item(number=number))
        return number

    # What our side runs with; its own default for PostgreSQL, SERIALIZABLE, costs it more.
    options = {} if task.is_sqlite else {"isolation_level": "READ COMMITTED"}
    decorated: Callable[[int], int] = datasource.transaction(insert, **options)
    return decorated


if __name__ == "__main__":
    main(work)
