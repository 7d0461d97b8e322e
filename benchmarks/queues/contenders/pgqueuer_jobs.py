"""pgqueuer as its page on tuning says: large batches, uvloop, its autovacuum settings, a connection for the worker.

It keeps no results and knows no steps: a job that returned is deleted, and logged. It is not installed where
we are, so its types are unknown here.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from benchmarks.queues.side import Talk, main, start_apart_async, timed_async
from benchmarks.queues.task import QUEUE, Part, QueueTask

asyncpg: Any = import_module("asyncpg")
uvloop: Any = import_module("uvloop")
pgqueuer: Any = import_module("pgqueuer")
drivers: Any = import_module("pgqueuer.db")
queries: Any = import_module("pgqueuer.queries")

BATCH_SIZE = 100


def play(task: QueueTask, talk: Talk) -> None:
    """Play the part."""
    uvloop.run(_play(task, talk))


async def _play(task: QueueTask, talk: Talk) -> None:
    connection = await asyncpg.connect(task.url)
    producer = queries.Queries(drivers.AsyncpgDriver(connection))

    async def run(number: int) -> bool:
        await producer.enqueue(QUEUE, str(number).encode())
        return False

    async def run_all() -> None:
        async with connection.transaction():
            numbers = [str(number).encode() for number in range(task.count)]
            await producer.enqueue([QUEUE] * task.count, numbers, [0] * task.count)

    async def run_each() -> None:
        for number in range(task.count):
            await run(number)

    match task.part:
        case Part.FILL:
            await producer.install()
            await producer.optimize_autovacuum()
            if task.count:
                await run_all()
            talk.wait_for_go()
            talk.tell_done()
        case Part.CONSUME:
            talk.wait_for_go()
            await _work(task, talk)
        case Part.ECHO:
            async with asyncio.TaskGroup() as group:
                group.create_task(_work(task, talk))
                await asyncio.sleep(1)
                await start_apart_async(talk, task.count, run)
        case Part.CALL:
            await start_apart_async(talk, task.count, run)
        case Part.START:
            await timed_async(talk, run_each)
        case Part.START_MANY:
            await timed_async(talk, run_all)
    await asyncio.Event().wait()


async def _work(task: QueueTask, talk: Talk) -> None:
    application = pgqueuer.PgQueuer(drivers.AsyncpgDriver(await asyncpg.connect(task.url)))

    async def work(job: Any) -> None:
        if task.is_async:
            talk.entered(int(job.payload))
        else:
            # What it says to do with functions that are no coroutines.
            await asyncio.to_thread(talk.entered, int(job.payload))

    application.entrypoint(QUEUE)(work)
    await application.run(batch_size=BATCH_SIZE)


if __name__ == "__main__":
    main(play)
