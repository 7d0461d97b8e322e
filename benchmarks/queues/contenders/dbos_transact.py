"""DBOS Transact's queues with its documented defaults; nothing below a warning is logged.

A queue polls, by default once a second. It is not installed where we are, so its types are unknown here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any

from sqlalchemy import create_engine

from benchmarks.application import with_driver
from benchmarks.queues.side import Talk, main, start_apart, timed
from benchmarks.queues.task import QUEUE, Part, QueueTask

dbos: Any = import_module("dbos")
DBOS = dbos.DBOS
OPTIONS = {"queue_name": QUEUE, "workflow_name": "workflow"}


def play(task: QueueTask, talk: Talk) -> None:
    """Play the part."""
    match task.part:
        case Part.FILL:
            _launch(task, talk)
            DBOS.destroy()
            _start_many(task)
            timed(talk, lambda: None)
        case Part.CONSUME:
            if task.is_async:
                asyncio.run(_consume_async(task, talk))
            else:
                talk.wait_for_go()
                _launch(task, talk)
                talk.stay()
        case Part.START_MANY:
            timed(talk, lambda: _start_many(task))
        case Part.START:
            client = dbos.DBOSClient(system_database_url=task.url)
            timed(talk, lambda: [client.enqueue(OPTIONS, number) for number in range(task.count)])
        case Part.CALL:
            client = dbos.DBOSClient(system_database_url=task.url)

            def call(number: int) -> bool:
                return bool(client.enqueue(OPTIONS, number).get_result() == number)

            start_apart(talk, task.count, call)
        case Part.ECHO:
            workflow = _launch(task, talk)

            def echo(number: int) -> bool:
                return bool(DBOS.enqueue_workflow(QUEUE, workflow, number).get_result() == number)

            start_apart(talk, task.count, echo)


def _launch(task: QueueTask, talk: Talk) -> Any:
    DBOS(config={"name": "benchmark", "system_database_url": task.url, "log_level": "WARNING"})
    step: Any
    body: Callable[[int], Any]

    if task.is_async:
        step = DBOS.step()(_number_async)

        async def body_async(number: int) -> int:
            talk.entered(number)
            return int(await step(number))

        body = body_async
    else:
        step = DBOS.step()(_number)

        def body_sync(number: int) -> int:
            talk.entered(number)
            return int(step(number))

        body = body_sync

    workflow = DBOS.workflow(name="workflow")(body)
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    return workflow


def _number(number: int) -> int:
    return number


async def _number_async(number: int) -> int:
    return number


async def _consume_async(task: QueueTask, talk: Talk) -> None:
    talk.wait_for_go()
    await asyncio.to_thread(_launch, task, talk)
    await asyncio.Event().wait()


def _start_many(task: QueueTask) -> None:
    client = dbos.DBOSClient(system_database_url=task.url)
    engine = create_engine(with_driver(task.url, "postgresql+psycopg"))
    with engine.begin() as connection:
        for number in range(task.count):
            client.enqueue_in_transaction(connection, OPTIONS, number)


if __name__ == "__main__":
    main(play)
