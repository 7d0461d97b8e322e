"""What a claim must not leave lying: work beside a waiting parent, behind rows that nobody can read, beside keys."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from dbos_orm import DBOS, Config, WorkflowStatus
from dbos_orm._drivers.hints import Hints
from tests.databases import TestDatabase
from tests.integration.shop import launched_async
from tests.integration.test_dispatch import FEW_THREADS, application, number_workflow, results
from tests.processes import PATIENCE, eventually

NO_TICK = Config(tick=300, worker_threads=1)
"""Whatever happens behind the launch is not found by looking around."""


def test_a_parent_that_waits_leaves_its_thread_to_its_children_at_once(database: TestDatabase) -> None:
    with application(database, NO_TICK) as (dbos, running):
        queue, work = dbos.queue("mails"), number_workflow(dbos, running)

        @dbos.workflow
        def family(size: int) -> int:
            one_by_one = sum(work.options(queue=queue).start(number).result() for number in range(size))
            handles = [work.options(queue=queue).start(number) for number in range(size)]
            return one_by_one + sum(handle.result() for handle in handles)

        dbos.launch()
        assert family.options(queue=queue).start(10).result(PATIENCE) == 90


def test_the_limit_of_one_process_holds_for_more_names_than_a_statement_asks_for(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        queue = dbos.queue("mails", worker_concurrency=1)
        works = [dbos.workflow(name=f"work {number}")(running.run) for number in range(40)]
        handles = [work.options(queue=queue).start(number) for number, work in enumerate(works)]
        dbos.launch()
        results(handles)
        assert running.most == 1


def test_rows_that_cannot_be_read_do_not_keep_a_slot_until_the_next_tick(database: TestDatabase) -> None:
    with application(database, NO_TICK) as (dbos, running):
        queue, work = dbos.queue("mails", concurrency=1), number_workflow(dbos, running)
        unreadable = [work.options(queue=queue).start(number) for number in range(5)]
        with Session(database.make_engine()) as session, session.begin():
            session.execute(update(WorkflowStatus).values(input='{"args": [{"__dbos__": "nothing known"}]}'))
        readable = work.options(queue=queue).start(100)
        dbos.launch()
        assert readable.result(PATIENCE) == 100
        assert {handle.describe().status.value for handle in unreadable} == {"DELAYED"}


def test_partitions_that_are_busy_here_do_not_keep_their_neighbours_waiting(database: TestDatabase) -> None:
    with application(database, Config(tick=0.05, worker_threads=24)) as (dbos, _running):
        queue = dbos.queue("tenants", partitioned=True, worker_concurrency=1)
        begun: Counter[str] = Counter()
        may_end = threading.Event()

        @dbos.workflow
        def work(key: str) -> None:
            begun[key] += 1
            assert key == "key 18" or may_end.wait(PATIENCE)

        keys = [f"key {number:02}" for number in range(20)]
        handles = [work.options(queue=queue, partition_key=key).start(key) for key in keys * 2]
        try:
            dbos.launch()
            eventually(lambda: len(begun) == 20 and begun["key 18"] == 2)
        finally:
            may_end.set()
        for handle in handles:
            handle.result(PATIENCE)


@pytest.mark.parametrize("is_paused", [True, False])
def test_others_are_not_told_of_what_a_limit_or_a_pause_holds_back(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch, is_paused: bool
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Hints, "tell_others", lambda _self, queue, _name, **_: told.append(queue))
    other = DBOS(name="shop", config=Config(tick=0.05)).bind(database.make_engine())
    with application(database, FEW_THREADS) as (dbos, running):
        running.may_end.clear()
        queue, last = dbos.queue("mails", concurrency=1), dbos.queue("last", worker_concurrency=1)
        work = number_workflow(dbos, running)
        other.launch()
        try:
            if is_paused:
                other.queues.create("mails", concurrency=1)
                other.queues.pause("mails")
            mails = [work.options(queue=queue).start(number) for number in range(3)]
            others = [work.options(queue=last).start(number) for number in range(3)]
            dbos.launch()
            eventually(lambda: told.count("last") >= 2)
            assert "mails" not in told
            if is_paused:
                other.queues.resume("mails")
            running.may_end.set()
            results([*mails, *others])
        finally:
            other.shutdown()


async def test_coroutines_that_wait_for_their_children_leave_them_a_place(database: TestDatabase) -> None:
    config = Config(tick=60, async_workflows=2)
    async with launched_async(database, config=config) as dbos:
        queue = dbos.queue("mails")

        @dbos.workflow
        async def child(number: int) -> int:
            return number

        @dbos.workflow
        async def parent(number: int) -> int:
            handle = await child.options(queue=queue).start(number)
            return await handle.result()

        handles = [await parent.options(queue=queue).start(number) for number in range(6)]
        assert [await handle.result(PATIENCE) for handle in handles] == list(range(6))
