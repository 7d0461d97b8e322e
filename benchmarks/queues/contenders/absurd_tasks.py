"""absurd with one checkpointed step; the schema is the one that PyPI's ``absurdctl`` carries.

Its worker has one connection and polls, by default every 250 ms. It is not installed where we are, so its types
are unknown here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.queues.side import Talk, main, start_apart, timed
from benchmarks.queues.task import CONCURRENCY, QUEUE, Part, QueueTask

psycopg: Any = import_module("psycopg")
absurd: Any = import_module("absurd_sdk")
absurdctl: Any = import_module("absurdctl")


def play(task: QueueTask, talk: Talk) -> None:
    """Play the part."""
    if task.part is Part.CONSUME and task.is_async:
        asyncio.run(_consume_async(task, talk))
        return
    connection = psycopg.connect(task.url, autocommit=True)
    client = absurd.Absurd(connection, queue_name=QUEUE)
    _register(client, talk)

    def run(number: int) -> bool:
        started = client.spawn("number", {"number": number})
        client.await_task_result(started["task_id"])
        return True

    def run_all() -> None:
        with connection.transaction():
            for number in range(task.count):
                client.spawn("number", {"number": number})

    match task.part:
        case Part.FILL:
            connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
            client.create_queue(QUEUE)
            run_all()
            timed(talk, lambda: None)
        case Part.CONSUME:
            talk.wait_for_go()
            client.start_worker(concurrency=CONCURRENCY)
        case Part.CALL:
            start_apart(talk, task.count, run)
        case Part.START:
            timed(talk, lambda: [client.spawn("number", {"number": number}) for number in range(task.count)])
        case Part.START_MANY:
            timed(talk, run_all)
        case Part.ECHO:
            _echo(task, talk, run)


def _echo(task: QueueTask, talk: Talk, run: Callable[[int], bool]) -> None:
    worker = absurd.Absurd(task.url, queue_name=QUEUE)
    _register(worker, talk)
    import_module("threading").Thread(target=lambda: worker.start_worker(concurrency=CONCURRENCY), daemon=True).start()
    time.sleep(1)
    start_apart(talk, task.count, run)


async def _consume_async(task: QueueTask, talk: Talk) -> None:
    client = absurd.AsyncAbsurd(task.url, queue_name=QUEUE)

    async def function(params: Any, context: Any) -> Any:
        async def step() -> int:
            return int(params["number"])

        talk.entered(params["number"])
        return await context.step("step", step)

    client.register_task("number")(function)

    talk.wait_for_go()
    await client.start_worker(concurrency=CONCURRENCY)


def _register(client: Any, talk: Talk) -> None:
    def function(params: Any, context: Any) -> Any:
        talk.entered(params["number"])
        return context.step("step", lambda: params["number"])

    client.register_task("number")(function)


if __name__ == "__main__":
    main(play)
