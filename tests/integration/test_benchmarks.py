"""The contenders of the benchmarks do their tasks, and what they send is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.contender import Contender
from benchmarks.program import RunFailedError
from benchmarks.relay import Relay
from benchmarks.tasks import Task
from tests.databases import TestDatabase

FLOOR = Contender("floor", "floor")
GROUPED = Contender("grouped", "grouped_floor")
SQLITE_FLOOR = Contender("floor", "sqlite_floor")
OURS = Contender("dbos_orm", "ours")


def plain_url(database: TestDatabase) -> str:
    return database.url.set(drivername="postgresql").render_as_string(hide_password=False)


def round_trips(contender: Contender, task: Task, database: TestDatabase) -> int:
    url = plain_url(database)
    with Relay(url) as relay:
        return contender.run(task.at(relay.through(url)), lambda: relay.round_trips).counted


def test_every_statement_of_a_serial_contender_is_one_round_trip(postgresql_database: TestDatabase) -> None:
    # A start, three steps and a finish; a transactional step is BEGIN, a row, the record and COMMIT.
    assert round_trips(FLOOR, Task(2, 3), postgresql_database) == 2 * 5
    assert round_trips(FLOOR, Task(2, 3, is_transactional=True), postgresql_database) == 2 * 14


def test_writes_of_several_threads_share_round_trips(postgresql_database: TestDatabase) -> None:
    assert round_trips(GROUPED, Task(64, 3, is_concurrent=True), postgresql_database) < 64 * 5


@pytest.mark.parametrize(
    "task",
    [Task(2, 1, is_transactional=True), Task(2, 1, is_concurrent=True, is_async=True)],
    ids=["sync", "async"],
)
def test_our_library_enters(postgresql_database: TestDatabase, task: Task) -> None:
    assert round_trips(OURS, task, postgresql_database) > 0


@pytest.mark.parametrize("contender", [SQLITE_FLOOR, OURS], ids=lambda each: each.key)
def test_sqlite_is_entered(contender: Contender, tmp_path: Path) -> None:
    task = Task(2, 1, is_transactional=True, is_sqlite=True, url=f"sqlite:///{tmp_path / 'benchmark.sqlite'}")
    assert contender.run(task, lambda: 0).seconds > 0


def test_a_contender_that_fails_says_why() -> None:
    with pytest.raises(RunFailedError, match="OperationalError"):
        FLOOR.run(Task(1, 1, url="postgresql://127.0.0.1:1/nowhere"), lambda: 0)
