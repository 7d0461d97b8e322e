"""procrastinate with psycopg's binary build, a pool, LISTEN and a worker of many jobs at once.

It keeps no results and knows no steps: its task returns, and the job is marked as succeeded. It is not installed
where we are, so its types are unknown here.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from benchmarks.queues.side import Talk, main, start_apart_async, timed_async
from benchmarks.queues.task import CONCURRENCY, QUEUE, Part, QueueTask

procrastinate: Any = import_module("procrastinate")


def play(task: QueueTask, talk: Talk) -> None:
    """Play the part."""
    asyncio.run(_play(task, talk))


async def _play(task: QueueTask, talk: Talk) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=task.url, min_size=4, max_size=20))
    number_task = _task(app, task, talk)

    async def run(number: int) -> bool:
        await number_task.defer_async(number=number)
        return False

    async def run_all() -> None:
        await number_task.batch_defer_async(*({"number": number} for number in range(task.count)))

    async def run_each() -> None:
        for number in range(task.count):
            await run(number)

    async with app.open_async():
        match task.part:
            case Part.FILL:
                await app.schema_manager.apply_schema_async()
                if task.count:
                    await run_all()
                talk.wait_for_go()
                talk.tell_done()
            case Part.CONSUME:
                talk.wait_for_go()
                await _work(app)
            case Part.ECHO:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_work(app))
                    await asyncio.sleep(1)
                    await start_apart_async(talk, task.count, run)
            case Part.CALL:
                await start_apart_async(talk, task.count, run)
            case Part.START:
                await timed_async(talk, run_each)
            case Part.START_MANY:
                await timed_async(talk, run_all)
        await asyncio.Event().wait()


def _task(app: Any, task: QueueTask, talk: Talk) -> Any:
    async def function_async(number: int) -> int:
        return talk.entered(number)

    return app.task(queue=QUEUE, name="number")(function_async if task.is_async else talk.entered)


async def _work(app: Any) -> None:
    await app.run_worker_async(
        queues=[QUEUE], concurrency=CONCURRENCY, listen_notify=True, install_signal_handlers=False
    )


if __name__ == "__main__":
    main(play)
