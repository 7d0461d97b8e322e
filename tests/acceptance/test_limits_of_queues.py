"""The limits of queues hold exactly, over four processes: by what the processes report, and by the rows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from dbos_orm.models import WorkflowStatus
from tests.acceptance.tasks import Tasks
from tests.databases import TestDatabase
from tests.processes import ChildProcess, Processes, eventually

PROCESSES = 4
NANOSECONDS = 1_000_000_000
CLOCKS = 0.002
"""A row's start is a moment after the instant at which the starts before it were counted."""


class Run(NamedTuple):
    """The body of a task, by the clock of the host."""

    process: int
    number: int
    key: str
    began: int
    ended: int


class Pool:
    """Worker processes on one database, and a process that only starts tasks."""

    def __init__(self, database: TestDatabase, processes: Processes) -> None:
        self._database = database
        self._processes = processes
        self._engine = database.make_engine()
        self.tasks = Tasks(self._engine)
        self.children: list[ChildProcess] = []

    def start_processes(self, count: int = PROCESSES, **settings: object) -> None:
        url = self._database.url.render_as_string(hide_password=False)
        new = [self._processes.start_module("tests.acceptance.tasks", url, json.dumps(settings)) for _ in range(count)]
        for child in new:
            child.wait_for_line("ready")
        self.children += new

    def enqueue(self, queue: str, numbers: Iterable[int], *, seconds: float, keys: str = "") -> None:
        """Tasks in one transaction; each has one of the keys in turn."""
        with Session(self._engine) as session, session.begin():
            for number in numbers:
                key = keys[number % len(keys)] if keys else ""
                options = self.tasks.work.options(queue=queue, workflow_id=f"task-{number}")
                if key:
                    options = options.options(partition_key=key)
                options.start_in(session, number, key, seconds)

    def runs(self) -> list[Run]:
        """What has begun and ended so far."""
        found = []
        for process, child in enumerate(self.children):
            began: dict[int, int] = {}
            for line in child.lines:
                if not line.startswith(("began", "ended")):
                    continue
                what, number, key, instant = line.split()
                if what == "began":
                    began[int(number)] = int(instant)
                else:
                    found.append(Run(process, int(number), key, began[int(number)], int(instant)))
        return sorted(found, key=lambda run: run.began)

    def wait_for(self, count: int) -> list[Run]:
        eventually(lambda: len(self.runs()) >= count, what=f"{count} tasks")
        runs = self.runs()
        assert sorted(run.number for run in runs) == list(range(count)), "each task runs once"
        return runs


@pytest.fixture
def pool(database: TestDatabase, processes: Processes) -> Iterator[Pool]:
    made = Pool(database, processes)
    yield made
    made.tasks.dbos.shutdown()


def most_at_once(runs: Iterable[Run]) -> int:
    """How many bodies were under way at the same instant, at most."""
    changes = sorted(change for run in runs for change in ((run.began, 1), (run.ended, -1)))
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def by(runs: Iterable[Run], key: Callable[[Run], object]) -> dict[object, list[Run]]:
    groups: dict[object, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


@contextmanager
def watching(engine: Engine, queue: str) -> Iterator[dict[str | None, int]]:
    """The largest number of runs that a watcher sees in the rows at any time, by partition key."""
    most: dict[str | None, int] = {}
    is_over = threading.Event()
    statement = (
        select(WorkflowStatus.partition_key, func.count())
        .where(WorkflowStatus.queue == queue, WorkflowStatus.status == "PENDING")
        .group_by(WorkflowStatus.partition_key)
    )

    def watch() -> None:
        with engine.connect().execution_options(sqlite_deferred=True) as connection:
            while not is_over.is_set():
                for key, count in connection.execute(statement):
                    most[key] = max(count, most.get(key, 0))
                connection.rollback()
                is_over.wait(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        is_over.set()
        thread.join()


def starts(engine: Engine, queue: str) -> dict[str | None, list[float]]:
    """When runs were claimed, by the clock of the database, by partition key."""
    found: dict[str | None, list[float]] = {}
    statement = select(WorkflowStatus.partition_key, WorkflowStatus.started_at).where(WorkflowStatus.queue == queue)
    with engine.connect() as connection:
        for key, started_at in connection.execute(statement):
            assert started_at is not None
            found.setdefault(key, []).append(started_at.timestamp())
    return {key: sorted(instants) for key, instants in found.items()}


def assert_rate(instants: list[float], limit: int, period: float) -> None:
    """No window of the period, wherever it begins, has more starts than the limit."""
    for first, beyond in zip(instants, instants[limit:], strict=False):
        assert beyond - first >= period - CLOCKS, f"{limit + 1} starts within {beyond - first:.4f} s"


def test_no_more_run_at_a_time_than_the_concurrency_of_all_processes(pool: Pool, database: TestDatabase) -> None:
    pool.start_processes()
    with watching(database.make_engine(), "few") as most:
        pool.enqueue("few", range(250), seconds=0.015)
        runs = pool.wait_for(250)
    assert most_at_once(runs) == 5, "all slots are used, and none more"
    assert most[None] == 5
    assert len({run.process for run in runs}) > 1


def test_no_more_run_at_a_time_in_a_process_than_its_concurrency(pool: Pool) -> None:
    pool.start_processes()
    pool.enqueue("here", range(60), seconds=0.05)
    runs = pool.wait_for(60)
    each = {process: most_at_once(own) for process, own in by(runs, lambda run: run.process).items()}
    assert max(each.values()) == 2
    assert most_at_once(runs) <= 2 * PROCESSES


def test_no_window_has_more_starts_than_the_rate_allows(pool: Pool, database: TestDatabase) -> None:
    pool.start_processes()
    pool.enqueue("slow", range(30), seconds=0.0)
    began = time.monotonic()
    pool.wait_for(30)
    instants = starts(database.make_engine(), "slow")[None]
    assert_rate(instants, 10, 0.8)
    assert time.monotonic() - began < 10, "it is not much slower than it may be"


def test_a_partition_has_limits_of_its_own(pool: Pool, database: TestDatabase) -> None:
    pool.start_processes()
    with watching(database.make_engine(), "shared") as most:
        pool.enqueue("shared", range(150), seconds=0.02, keys="abc")
        runs = pool.wait_for(150)
    assert {key: most_at_once(own) for key, own in by(runs, lambda run: run.key).items()} == {"a": 2, "b": 2, "c": 2}
    assert max(most.values()) == 2
    assert most_at_once(runs) > 2


def test_a_partition_has_a_rate_of_its_own(pool: Pool, database: TestDatabase) -> None:
    pool.start_processes()
    pool.enqueue("shares", range(18), seconds=0.0, keys="ab")
    pool.wait_for(18)
    for instants in starts(database.make_engine(), "shares").values():
        assert len(instants) == 9
        assert_rate(instants, 3, 0.8)


def test_partitions_take_turns_however_much_waits_in_one(pool: Pool) -> None:
    pool.enqueue("shared", range(100, 160), seconds=0.02, keys="a")
    pool.enqueue("shared", range(10), seconds=0.02, keys="bc")
    # Two threads for three partitions: there is never room for all.
    pool.start_processes(1, worker_threads=2)
    runs = eventually(lambda: runs if len(runs := pool.runs()) == 70 else [])
    last_of_others = max(place for place, run in enumerate(runs) if run.key != "a")
    assert last_of_others < 30, "who has little to do does not wait for who has much"


@pytest.mark.parametrize("queue", ["plain", "few"])
def test_a_pause_holds_within_a_second_and_a_resumption_at_once(pool: Pool, queue: str) -> None:
    pool.start_processes(2)
    queues = pool.tasks.dbos.queues
    pool.enqueue(queue, range(300), seconds=0.1)
    eventually(lambda: len(pool.runs()) > 5, what="it is under way")

    queues.pause(queue)
    paused_at = time.monotonic_ns()
    eventually(lambda: queues.get(queue).running == 0, what="what runs has ended")
    waiting = queues.get(queue).depth
    assert waiting > 0
    eventually(lambda: time.monotonic_ns() > paused_at + 1.5 * NANOSECONDS)
    assert queues.get(queue).depth == waiting
    assert [run for run in pool.runs() if run.began > paused_at + NANOSECONDS] == []

    queues.resume(queue)
    resumed_at = time.monotonic_ns()
    again = eventually(lambda: [run.began for run in pool.runs() if run.began > paused_at + NANOSECONDS])
    assert min(again) - resumed_at < NANOSECONDS


def test_a_limit_that_is_lowered_while_work_goes_on_holds_as_soon_as_what_runs_has_ended(pool: Pool) -> None:
    pool.start_processes()
    queues = pool.tasks.dbos.queues
    pool.enqueue("few", range(60), seconds=0.1)
    eventually(lambda: len(pool.runs()) > 10)

    queues.set("few", concurrency=2)
    # Whoever was claimed before may need a moment to begin.
    lowered_at = time.monotonic_ns() + NANOSECONDS // 4

    runs = pool.wait_for(60)
    assert most_at_once(runs) == 5
    later = [run for run in runs if run.began > lowered_at]
    assert most_at_once(later) == 2
    beside = [sum(other.began <= run.began < other.ended for other in runs) for run in later]
    assert max(beside) <= 2, "nothing is begun until there is room"
