"""This library's queues, with the documented defaults, as a user would write it."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from sqlalchemy import create_engine

from benchmarks.application import with_driver
from benchmarks.queues.side import Talk, main, start_apart, timed
from benchmarks.queues.task import QUEUE, Part, QueueTask
from dbos_orm import DBOS, AsyncDBOS, Config
from dbos_orm._clock import Clock
from dbos_orm._dialects import dialect_of
from dbos_orm._identifiers import random_token
from dbos_orm._registry import Runnable
from dbos_orm._store.claiming import Claimant, Share, claim
from dbos_orm._workflows import Workflow

Numbered: TypeAlias = Workflow[[int], int]


def play(task: QueueTask, talk: Talk) -> None:
    """Play the part; the starting ones are those of a synchronous user."""
    if task.part is Part.CONSUME and task.is_async:
        asyncio.run(_consume_async(task, talk))
        return
    dbos, workflow = _application(task, talk)
    if task.part is Part.CLAIM:
        _claim(task, talk)
    if task.part in {Part.CONSUME, Part.ECHO}:
        _play_launched(task, talk, dbos, workflow)
    else:
        _play_bound(task, talk, dbos, workflow)


def _play_launched(task: QueueTask, talk: Talk, dbos: DBOS, workflow: Numbered) -> None:
    if task.part is Part.CONSUME:
        talk.wait_for_go()
        with dbos.launch():
            talk.stay()
    with dbos.launch():
        start_apart(talk, task.count, lambda number: workflow.start(number).result() == number)


def _claim(task: QueueTask, talk: Talk) -> None:
    engine = create_engine(with_driver(task.url, "postgresql+psycopg2"), isolation_level="AUTOCOMMIT")
    dialect = dialect_of(engine, Clock(), Config())
    connection = dialect.direct_connection(engine)
    connection.execute("INSERT INTO dbos_queue (application, name) VALUES ('benchmark', 'crowd')")
    runnable = [Runnable("workflow", "1")]

    def claim_all() -> None:
        for _ in range(task.count):
            claimant = Claimant("benchmark", "nobody", random_token(), runnable)
            claimed = claim(connection, dialect, claimant, [Share("crowd", runnable, 20)], limit=20)
            assert len(claimed) == 20

    timed(talk, claim_all)


def _play_bound(task: QueueTask, talk: Talk, dbos: DBOS, workflow: Numbered) -> None:
    def start_many() -> None:
        dbos.start_many([workflow.call(number) for number in range(task.count)])

    if task.part is Part.FILL:
        # Creates the tables; the queue's row is filled in by who consumes.
        with dbos.launch(queues=[], migrate=True):
            if task.count:
                start_many()
            timed(talk, lambda: None)
    dbos.bind(with_driver(task.url, "postgresql+psycopg2"))
    match task.part:
        case Part.CALL:
            start_apart(talk, task.count, lambda number: workflow.start(number).result() == number)
        case Part.START:
            timed(talk, lambda: [workflow.start(number) for number in range(task.count)])
        case _:
            timed(talk, start_many)


def _application(task: QueueTask, talk: Talk) -> tuple[DBOS, Numbered]:
    dbos = DBOS(with_driver(task.url, "postgresql+psycopg2"), name="benchmark")

    @dbos.step
    def step(number: int) -> int:
        return number

    @dbos.workflow(name="workflow")
    def workflow(number: int) -> int:
        talk.entered(number)
        return step(number)

    return dbos, workflow.options(queue=dbos.queue(QUEUE))


async def _consume_async(task: QueueTask, talk: Talk) -> None:
    dbos = AsyncDBOS(with_driver(task.url, "postgresql+asyncpg"), name="benchmark")

    @dbos.step
    async def step(number: int) -> int:
        return number

    @dbos.workflow(name="workflow")
    async def workflow(number: int) -> int:
        talk.entered(number)
        return await step(number)

    dbos.queue(QUEUE)
    talk.wait_for_go()
    async with dbos.launch():
        await asyncio.Event().wait()


if __name__ == "__main__":
    main(play)
