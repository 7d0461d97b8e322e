"""The contenders of the benchmarks do their tasks, and what they send is counted."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contender import Contender
from benchmarks.program import RunFailedError
from benchmarks.queues import runs
from benchmarks.queues.rivals import OURS as OUR_QUEUE
from benchmarks.queues.runs import Claim, Drain, Enqueue, Latency
from benchmarks.queues.server import Database
from benchmarks.relay import Relay
from benchmarks.tasks import Task
from tests.databases import TestDatabase
from tests.postgres_server import ServerAddress

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


@pytest.fixture
def queue_server(postgres_server: ServerAddress, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(runs, "SETTLING", 0.5)
    return postgres_server.url("postgres").set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.mark.parametrize("kind", [Drain(12), Drain(12, is_async=True, processes=2)], ids=["sync", "async"])
def test_our_queue_is_drained(queue_server: str, kind: Drain) -> None:
    with Database(queue_server, f"dbos_orm_drained_{secrets.token_hex(6)}") as database:
        figures = kind.run(OUR_QUEUE, database)
    assert all(value > 0 for value, _ in figures.values())
    assert set(figures) == {"", "CPU for each"}


@pytest.mark.parametrize("is_other_process", [False, True], ids=["own process", "other process"])
def test_the_latency_of_our_queue_is_taken(queue_server: str, is_other_process: bool) -> None:
    with Database(queue_server, f"dbos_orm_idle_{secrets.token_hex(6)}") as database:
        figures = Latency(7, is_other_process).run(OUR_QUEUE, database)
    assert set(figures) == {"to begin, p50", "to begin, p99", "to result, p50", "to result, p99"}
    assert figures["to begin, p50"][0] < figures["to result, p50"][0]


@pytest.mark.parametrize("is_one_transaction", [False, True])
def test_our_starts_are_timed(queue_server: str, is_one_transaction: bool) -> None:
    with Database(queue_server, f"dbos_orm_started_{secrets.token_hex(6)}") as database:
        assert Enqueue(10, is_one_transaction).run(OUR_QUEUE, database)[""][0] > 0
        assert database.number("SELECT count(*) FROM dbos_workflow_status WHERE status = 'ENQUEUED'") == 10


def test_our_claims_are_timed(queue_server: str) -> None:
    with Database(queue_server, f"dbos_orm_claims_{secrets.token_hex(6)}") as database:
        assert Claim(2, finished=30, waiting=50).run(OUR_QUEUE, database)[""][0] > 0
        assert database.number("SELECT count(*) FROM dbos_workflow_status WHERE status = 'PENDING'") == 40


def test_a_consumer_that_ends_early_says_why() -> None:
    nowhere = replace(OUR_QUEUE, key="nobody")
    with pytest.raises(RunFailedError, match="No module named"):
        nowhere.fill("postgresql://127.0.0.1:1/nowhere", 1)
