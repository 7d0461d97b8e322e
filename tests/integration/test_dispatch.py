"""What is claimed from queues: in which order, how much of it, and by whom."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dbos_orm import DBOS, Config, RateLimit, WorkflowHandle, WorkflowState, WorkflowStatus
from dbos_orm._workflows import Workflow
from dbos_orm.errors import ConfigurationError, QueueNotFoundError
from dbos_orm.models import RateStart
from tests.databases import TestDatabase
from tests.integration.shop import Held, count_of, launched_async, reading
from tests.processes import PATIENCE, eventually, eventually_async

ONE_THREAD = Config(tick=0.05, worker_threads=1)
FEW_THREADS = Config(tick=0.05, worker_threads=4)


class Running:
    """Counts what runs at the same time, and what was begun, in its order."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self.may_end = threading.Event()

    def run(self, number: int) -> int:
        with self._lock:
            self.begun.append(number)
            self._now += 1
            self.most = max(self.most, self._now)
        assert self.may_end.wait(PATIENCE)
        with self._lock:
            self._now -= 1
        return number


def number_workflow(dbos: DBOS, running: Running) -> Workflow[[int], int]:
    @dbos.workflow
    def work(number: int) -> int:
        return running.run(number)

    return work


@contextmanager
def application(database: TestDatabase, config: Config) -> Iterator[tuple[DBOS, Running]]:
    """An application that is bound, and to be launched when something waits."""
    dbos, running = DBOS(name="shop", config=config).bind(database.make_engine()), Running()
    running.may_end.set()
    try:
        yield dbos, running
    finally:
        running.may_end.set()
        dbos.shutdown()


def results(handles: list[WorkflowHandle[int]]) -> list[int]:
    return [handle.result(PATIENCE) for handle in handles]


def test_the_lower_priority_number_comes_first_and_then_the_earlier_start(database: TestDatabase) -> None:
    with application(database, ONE_THREAD) as (dbos, running):
        queue, work = dbos.queue("mails"), number_workflow(dbos, running)
        handles = [
            work.options(queue=queue, priority=priority).start(number)
            for number, priority in enumerate([0, 5, -1, 0, 5, -1, 0])
        ]
        dbos.launch()
        results(handles)
        assert running.begun == [2, 5, 0, 3, 6, 1, 4]


def test_a_full_queue_does_not_hold_up_another_one(database: TestDatabase) -> None:
    with application(database, ONE_THREAD) as (dbos, running):
        mails, books, work = dbos.queue("mails"), dbos.queue("books"), number_workflow(dbos, running)
        waiting = [work.options(queue=mails).start(number) for number in range(20)]
        late = work.options(queue=books).start(100)
        dbos.launch()
        results([*waiting, late])
        assert running.begun.index(100) < 10


def test_no_more_is_claimed_than_there_are_threads(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        running.may_end.clear()
        queue, work = dbos.queue("mails"), number_workflow(dbos, running)
        handles = [work.options(queue=queue).start(number) for number in range(20)]
        dbos.launch()
        eventually(lambda: len(running.begun) == 4)
        assert count_of(database, WorkflowStatus, status="PENDING") == 4
        running.may_end.set()
        assert sorted(results(handles)) == list(range(20))
        assert running.most == 4


@pytest.mark.parametrize("is_global", [True, False])
def test_no_more_of_a_queue_runs_than_its_limit(database: TestDatabase, is_global: bool) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        queue = dbos.queue("mails", concurrency=2) if is_global else dbos.queue("mails", worker_concurrency=2)
        work = number_workflow(dbos, running)
        running.may_end.clear()
        handles = [work.options(queue=queue).start(number) for number in range(12)]
        dbos.launch()
        eventually(lambda: len(running.begun) == 2)
        assert count_of(database, WorkflowStatus, status="PENDING") == 2
        running.may_end.set()
        assert sorted(results(handles)) == list(range(12))
        assert running.most == 2


def test_a_cancelled_run_keeps_its_slot_until_its_code_has_ended(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        held = Held()
        queue = dbos.queue("mails", concurrency=1)

        @dbos.workflow
        def hold() -> None:
            held.hold()

        work = number_workflow(dbos, running)
        first = hold.options(queue=queue).start()
        dbos.launch()
        assert held.began.wait(PATIENCE)
        second = work.options(queue=queue).start(2)
        first.cancel()
        eventually(lambda: first.status() is WorkflowState.CANCELLED)
        with pytest.raises(TimeoutError):
            second.result(0.3)
        held.release.set()
        assert second.result(PATIENCE) == 2


def test_no_window_has_more_starts_than_the_rate_allows(database: TestDatabase) -> None:
    period = timedelta(seconds=0.3)
    with application(database, FEW_THREADS) as (dbos, running):
        queue = dbos.queue("mails", rate_limit=RateLimit(3, period))
        work = number_workflow(dbos, running)
        handles = [work.options(queue=queue).start(number) for number in range(10)]
        dbos.launch()
        results(handles)
        with reading(database) as session:
            starts = list(session.scalars(select(RateStart.started_at).order_by(RateStart.started_at)))
    assert len(starts) == 10
    assert all(later - earlier >= period for earlier, later in zip(starts, starts[3:], strict=False))


def test_partitions_take_turns_and_each_has_the_limit_by_itself(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        queue = dbos.queue("mails", concurrency=1, partitioned=True)
        work = number_workflow(dbos, running)
        running.may_end.clear()
        handles = [
            work.options(queue=queue, partition_key=key).start(number)
            for number, key in enumerate(["a"] * 6 + ["b"] * 3 + ["c"])
        ]
        dbos.launch()
        eventually(lambda: len(running.begun) == 3)
        with reading(database) as session:
            busy = session.scalars(select(WorkflowStatus.partition_key).where(WorkflowStatus.status == "PENDING"))
            assert Counter(busy) == {"a": 1, "b": 1, "c": 1}
        running.may_end.set()
        assert sorted(results(handles)) == list(range(10))
        order = {"a": [0, 1, 2, 3, 4, 5], "b": [6, 7, 8]}
        assert [number for number in running.begun if number in order["a"]] == order["a"]
        assert [number for number in running.begun if number in order["b"]] == order["b"]


def test_more_partitions_than_one_claim_looks_at_are_all_served(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        queue = dbos.queue("mails", concurrency=1, partitioned=True)
        work = number_workflow(dbos, running)
        handles = [
            work.options(queue=queue, partition_key=f"tenant {number % 40}").start(number) for number in range(80)
        ]
        dbos.launch()
        assert sorted(results(handles)) == list(range(80))
        # Everybody has had a turn before anybody has had many.
        turns = Counter(number % 40 for number in running.begun[:60])
        assert len(turns) == 40


def test_a_paused_queue_gives_nothing_until_it_is_resumed(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        queue, work = dbos.queue("mails"), number_workflow(dbos, running)
        dbos.launch()
        dbos.queues.pause("mails")
        handle = work.options(queue=queue).start(1)
        with pytest.raises(TimeoutError):
            handle.result(0.3)
        dbos.queues.resume("mails")
        assert handle.result(PATIENCE) == 1


def test_a_resumed_queue_goes_on_without_waiting_for_the_tick(database: TestDatabase) -> None:
    with application(database, Config(tick=20, worker_threads=4)) as (dbos, running):
        queue, work = dbos.queue("mails"), number_workflow(dbos, running)
        dbos.launch()
        dbos.queues.pause(queue)
        handle = work.options(queue=queue).start(1)
        with pytest.raises(TimeoutError):
            handle.result(0.3)
        dbos.queues.resume(queue)
        assert handle.result(10) == 1


def test_a_process_serves_only_the_queues_it_was_launched_for(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        mails, books, work = dbos.queue("mails"), dbos.queue("books"), number_workflow(dbos, running)
        here, elsewhere = work.options(queue=mails).start(1), work.options(queue=books).start(2)
        without = work.start(3)
        dbos.launch(queues=[mails])
        assert results([here, without]) == [1, 3]
        assert elsewhere.status() is WorkflowState.ENQUEUED
        dbos.shutdown()
        dbos.bind(database.make_engine()).launch(queues=["books"])
        assert dbos.handle(elsewhere.workflow_id).result(PATIENCE) == 2


def test_a_launch_for_an_unknown_queue_is_refused(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, _):
        dbos.queue("mails")
        with pytest.raises(QueueNotFoundError, match="'books' does not exist; known: \\['mails'\\]"):
            dbos.launch(queues=["books"])
        with pytest.raises(ConfigurationError, match="a list of queues"):
            dbos.launch(queues="mails")


def test_a_row_that_cannot_be_read_is_held_and_blocks_nobody(database: TestDatabase) -> None:
    config = Config(tick=0.05, worker_threads=4, retry_unreadable=600)
    with application(database, config) as (dbos, running):
        queue, work = dbos.queue("mails", concurrency=1), number_workflow(dbos, running)
        broken = work.options(queue=queue, timeout=60).start(1)
        with Session(database.make_engine()) as session, session.begin():
            session.execute(update(WorkflowStatus).values(serializer="lost"))
        sound = work.options(queue=queue).start(2)
        dbos.launch()
        assert sound.result(PATIENCE) == 2
        eventually(lambda: count_of(database, WorkflowStatus, status="DELAYED") == 1)
        with reading(database) as session:
            row = session.get_one(WorkflowStatus, broken.workflow_id)
            assert row.is_held
            assert (row.owner_token, row.started_at, row.deadline, row.recovery_attempts) == (None, None, None, 0)
            assert "lost" in str(row.error)
        with Session(database.make_engine()) as session, session.begin():
            changed = {"serializer": "json", "delay_until": datetime.now(UTC)}
            session.execute(update(WorkflowStatus).where(WorkflowStatus.status == "DELAYED").values(**changed))
        assert broken.result(PATIENCE) == 1


def test_what_nobody_has_registered_blocks_nobody(database: TestDatabase, caplog: pytest.LogCaptureFixture) -> None:
    with application(database, ONE_THREAD) as (dbos, running):
        queue, work = dbos.queue("mails"), number_workflow(dbos, running)
        lost = [work.options(queue=queue).start(number) for number in range(5)]
        with Session(database.make_engine()) as session, session.begin():
            session.execute(update(WorkflowStatus).values(name="gone"))
        pinned = work.options(queue=queue, version="another").start(6)
        sound = work.options(queue=queue).start(7)
        dbos.launch()
        assert sound.result(PATIENCE) == 7
        assert {handle.status() for handle in (*lost, pinned)} == {WorkflowState.ENQUEUED}
        eventually(lambda: any("'gone' wait in queue 'mails'" in message for message in caplog.messages))
        assert running.begun == [7]


@pytest.mark.parametrize("partitioned", [False, True])
def test_what_is_of_another_version_takes_no_slot_of_a_limited_queue(database: TestDatabase, partitioned: bool) -> None:
    with application(database, ONE_THREAD) as (dbos, running):
        queue, work = dbos.queue("mails", concurrency=1, partitioned=partitioned), number_workflow(dbos, running)
        options = work.options(queue=queue, partition_key="ada") if partitioned else work.options(queue=queue)
        pinned = [options.options(version="another").start(number) for number in range(3)]
        sound = [options.start(number) for number in (7, 8)]
        dbos.launch()
        assert results(sound) == [7, 8]
        assert {handle.status() for handle in pinned} == {WorkflowState.ENQUEUED}
        assert running.begun == [7, 8]


def test_a_delay_ends_in_the_queue(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        queue, work = dbos.queue("mails"), number_workflow(dbos, running)
        began = datetime.now(UTC)
        dbos.launch()
        handle = work.options(queue=queue, delay=0.3).start(1)
        assert handle.status() is WorkflowState.DELAYED
        assert handle.result(PATIENCE) == 1
        assert datetime.now(UTC) - began >= timedelta(seconds=0.3)


def test_a_timeout_counts_from_the_claim(database: TestDatabase) -> None:
    with application(database, ONE_THREAD) as (dbos, _):
        queue = dbos.queue("mails")

        @dbos.workflow
        def work() -> datetime | None:
            return dbos.current.deadline

        handle = work.options(queue=queue, timeout=60).start()
        assert handle.describe().deadline is None
        before = datetime.now(UTC)
        dbos.launch()
        deadline = handle.result(PATIENCE)
        assert deadline is not None
        assert deadline - before >= timedelta(seconds=59.9)


def test_a_limit_that_is_set_at_run_time_holds_at_once(database: TestDatabase) -> None:
    with application(database, FEW_THREADS) as (dbos, running):
        queue, work = dbos.queue("mails"), number_workflow(dbos, running)
        dbos.launch()
        dbos.queues.set("mails", concurrency=1)
        running.may_end.clear()
        handles = [work.options(queue=queue).start(number) for number in range(6)]
        eventually(lambda: len(running.begun) == 1)
        assert count_of(database, WorkflowStatus, status="PENDING") == 1
        running.may_end.set()
        assert sorted(results(handles)) == list(range(6))
        assert running.most == 1


async def test_no_more_coroutines_are_taken_than_the_settings_allow(database: TestDatabase) -> None:
    may_end, begun = asyncio.Event(), list[int]()
    config = Config(tick=0.05, async_workflows=5)
    async with launched_async(database, config=config) as dbos:
        queue = dbos.queue("mails")

        @dbos.workflow
        async def work(number: int) -> int:
            begun.append(number)
            await may_end.wait()
            return number

        handles = [await work.options(queue=queue).start(number) for number in range(12)]
        await eventually_async(lambda: len(begun) == 5)
        await asyncio.to_thread(eventually, lambda: count_of(database, WorkflowStatus, status="PENDING") == 5)
        may_end.set()
        assert [await handle.result(PATIENCE) for handle in handles] == list(range(12))


def test_a_slot_that_becomes_free_is_used_without_waiting_for_a_tick(database: TestDatabase) -> None:
    """With ten runs one after another on one thread, and parents that lend it, a tick for each would take minutes."""
    config = Config(tick=60, worker_threads=1)
    with application(database, config) as (dbos, running):
        queue, work = dbos.queue("mails"), number_workflow(dbos, running)

        @dbos.workflow
        def parent(number: int) -> int:
            return work.options(queue=queue).start(number).result()

        handles = [parent.options(queue=queue).start(number) for number in range(10)]
        dbos.launch()
        assert results(handles) == list(range(10))
