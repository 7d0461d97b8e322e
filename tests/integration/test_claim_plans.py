"""Claims and their company read what they hand out, and not what has ended or waits behind it.

A table of a few rows is rightly read as a whole; what then happens when it grows is told in ``PreparingConnection``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, select, text

from dbos_orm import Config
from dbos_orm._clock import Clock
from dbos_orm._dialects import AnyConnection, Dialect, dialect_of
from dbos_orm._identifiers import random_token
from dbos_orm._registry import Runnable
from dbos_orm._store import checkpoints
from dbos_orm._store.claiming import Claimant, ClaimedRun, Share, claim, claim_limited
from dbos_orm._store.delays import promote_due
from dbos_orm._store.entries import Entry, RunFinish, StepEntry
from dbos_orm._store.overview import observe
from dbos_orm._store.queue_rows import Limits, lock_queue, waiting_keys
from dbos_orm.models import Queue
from tests.databases import TestDatabase, create_postgresql
from tests.engines import engine_for
from tests.plans import ExplainingConnection, Plan, PlanningConnection, explaining

STATUS = "dbos_workflow_status"
CLAIMED = 20
FILLING = """
INSERT INTO dbos_workflow_status (
    workflow_id, application, name, version, version_pinned, generation, status, input, output, serializer,
    recovery_attempts, queue, priority, partition_key, sequence, created_at, enqueued_at, started_at, completed_at,
    updated_at, delay_until)
SELECT md5('{status}' || n), 'shop', '{name}', {version}, false, 'g', '{status}', '{{}}', {output}, 'json',
    0, 'plain', n % 3, {key}, to_char(n, 'FM000000000'), now() - interval '1 hour', now() - interval '1 hour',
    {ended}, {ended}, now(), {delay}
FROM generate_series(1, {count}) AS numbers (n)
"""
QUEUES = """
INSERT INTO dbos_queue (application, name, partitioned, paused, concurrency)
VALUES ('shop', 'plain', false, false, NULL), ('shop', 'limited', true, false, 100)
"""


@dataclass(frozen=True)
class Crowd:
    """What is in the tables when they are analyzed."""

    finished: int
    waiting: int


CROWDS = [Crowd(10_000, 50), Crowd(200_000, 50), Crowd(10_000, 100_000)]


def fill(engine: Engine, crowd: Crowd) -> None:
    """Finished, waiting and delayed workflows, a tenth of the waiting in a queue with partitions; nothing runs."""
    past = "now() - interval '30 minutes'"
    finished = {"status": "SUCCESS", "version": "'1'", "output": "'1'", "key": "NULL", "ended": past, "delay": "NULL"}
    waiting = {"status": "ENQUEUED", "version": "NULL", "output": "NULL", "key": "NULL", "ended": "NULL"}
    with engine.begin() as connection:
        connection.execute(text(QUEUES))
        connection.execute(text(FILLING.format(**finished, name="order", count=crowd.finished)))
        connection.execute(text(FILLING.format(**waiting, name="order", delay="NULL", count=crowd.waiting)))
        connection.execute(
            text(f"UPDATE {STATUS} SET name = 'other' WHERE status = 'ENQUEUED' AND sequence < '000000010'")
        )
        connection.execute(
            text(
                f"UPDATE {STATUS} SET queue = 'limited', partition_key = 'key ' || right(sequence, 2) "
                "WHERE status = 'ENQUEUED' AND right(sequence, 1) = '7'"
            )
        )
        delayed = {**waiting, "status": "DELAYED"}
        late = min(crowd.waiting, 5000)
        connection.execute(text(FILLING.format(**delayed, name="order", delay=past, count=late)))
        connection.execute(text("ANALYZE"))


@pytest.fixture(scope="module", params=CROWDS, ids=lambda crowd: f"{crowd.finished} finished, {crowd.waiting} waiting")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with ExitStack() as stack:
        url, drop = create_postgresql(request.getfixturevalue("postgresql_template"))
        stack.callback(drop)
        engine = engine_for(url, isolation_level="AUTOCOMMIT")
        stack.callback(engine.dispose)
        fill(engine, request.param)
        yield engine


@pytest.fixture
def dialect(engine: Engine) -> Dialect:
    return dialect_of(engine, Clock(), Config())


@pytest.fixture
def explained(engine: Engine) -> Iterator[ExplainingConnection]:
    with explaining(engine) as connection:
        yield connection


def claimant(*names: str) -> Claimant:
    return Claimant("shop", "me", random_token(), [Runnable(name, "1") for name in names])


def claim_plain(connection: AnyConnection, dialect: Dialect) -> list[ClaimedRun]:
    who = claimant("order", "other", "absent")
    return claim(connection, dialect, who, [Share("plain", who.runnable, CLAIMED)], limit=CLAIMED)


def require_few(connection: ExplainingConnection, *, rows: int, pages: int) -> None:
    assert connection.plans
    for plan in connection.plans:
        assert plan.rows_read(STATUS) <= rows, str(plan)
        assert plan.pages <= pages, str(plan)


def test_a_claim_reads_what_it_hands_out(explained: ExplainingConnection, dialect: Dialect) -> None:
    assert len(claim_plain(explained, dialect)) == CLAIMED
    # Found in the index, ranked, and looked up by their IDs to be changed.
    require_few(explained, rows=5 * CLAIMED, pages=1500)


def test_a_claim_of_a_version_that_does_not_wait_reads_nothing(
    explained: ExplainingConnection, dialect: Dialect
) -> None:
    who = claimant("absent")
    assert claim(explained, dialect, who, [Share("plain", who.runnable, CLAIMED)], limit=CLAIMED) == []
    require_few(explained, rows=5, pages=50)


def test_a_claim_from_a_limited_queue_reads_what_it_hands_out(
    explained: ExplainingConnection, dialect: Dialect
) -> None:
    limits = lock_queue(explained, dialect, "shop", "limited")
    assert limits is not None
    keys = waiting_keys(explained, dialect, "shop", "limited", after="", limit=CLAIMED)
    require_few(explained, rows=2 * CLAIMED, pages=200)
    who = claimant("order")
    shares = [Share("limited", who.runnable, 1, key) for key in keys]
    assert claim_limited(explained, dialect, who, shares, limits, len(keys))
    require_few(explained, rows=10 * CLAIMED, pages=3000)


def test_the_overview_reads_a_row_for_each_queue_and_name(explained: ExplainingConnection, dialect: Dialect) -> None:
    overview = observe(explained, dialect, "shop", "me")
    assert {("plain", "order"), ("plain", "other"), ("limited", "order")} <= set(overview.waiting)
    require_few(explained, rows=60, pages=200)


def test_a_promotion_reads_what_is_due(explained: ExplainingConnection, dialect: Dialect) -> None:
    assert len(promote_due(explained, dialect, "shop", limit=CLAIMED)) == CLAIMED
    require_few(explained, rows=5 * CLAIMED, pages=2000)


def step_of(workflow_id: str, token: str, number: int) -> StepEntry:
    instant = "2026-11-22T12:00:00.000000+00:00"
    return StepEntry(workflow_id, "", 1, token, number, "charge", "step", "1", None, "json", 1, instant)


@pytest.mark.parametrize("count", [1, CLAIMED])
def test_a_batch_reads_its_own_workflows_where_none_ran_when_the_table_was_analyzed(
    explained: ExplainingConnection, dialect: Dialect, count: int
) -> None:
    who = claimant("order")
    # More than the batch is about: what reads all that runs would be seen.
    runs = claim(explained, dialect, who, [Share("plain", who.runnable, 35)], limit=35)
    entries: list[Entry] = [step_of(run.workflow_id, who.owner_token, n) for n, run in enumerate(runs[:count])]
    assert checkpoints.write(explained, dialect, entries) == set(range(count))
    require_few(explained, rows=2 * count, pages=60 * count)
    finishes: list[Entry] = [
        RunFinish(run.workflow_id, who.owner_token, "SUCCESS", "1", None, "json") for run in runs[:count]
    ]
    assert checkpoints.write(explained, dialect, finishes) == set(range(count))
    require_few(explained, rows=4 * count, pages=100 * count)


def test_the_view_of_a_queue_reads_what_is_in_it(engine: Engine, request: pytest.FixtureRequest) -> None:
    crowd: Crowd = request.node.callspec.params["engine"]
    statement = select(Queue.depth, Queue.lag, Queue.running, Queue.delayed).where(
        Queue.application == "shop", Queue.name == "plain"
    )
    compiled = statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})
    with engine.connect() as connection:
        answer = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}".replace("%", "%%"))
        plan = Plan("view", answer.scalar_one()[0]["Plan"])
    # The depth and the lag look at all that waits, and at what is delayed.
    assert plan.rows_read(STATUS) <= 3 * crowd.waiting + 6000, str(plan)


def test_sqlite_reads_workflows_by_an_index(sqlite_database: TestDatabase) -> None:
    engine = sqlite_database.make_engine()
    dialect = dialect_of(engine, Clock(), Config())
    connection = PlanningConnection(engine)
    who = claimant("order", "other")
    limits = Limits(5, None, 10, 1_000_000, True, None, False)
    asked: dict[str, Callable[[], object]] = {
        "claim": lambda: claim(connection, dialect, who, [Share("plain", who.runnable, 20)], limit=20),
        "limited": lambda: claim_limited(
            connection, dialect, who, [Share("limited", who.runnable, 1, "key")], limits, 20
        ),
        "keys": lambda: waiting_keys(connection, dialect, "shop", "limited", after="", limit=20),
        "overview": lambda: observe(connection, dialect, "shop", "me"),
        "promotion": lambda: promote_due(connection, dialect, "shop", limit=20),
        "step": lambda: checkpoints.write(connection, dialect, [step_of("some", "token", 0)]),
        "finish": lambda: checkpoints.write(connection, dialect, [RunFinish("some", "token", "ERROR", "", "", "json")]),
    }
    scans = {}
    for name, ask in asked.items():
        ask()
        assert connection.steps
        scans[name] = [step for step in connection.steps if step.startswith(f"SCAN {STATUS}") and "INDEX" not in step]
    connection.close()
    assert {name: found for name, found in scans.items() if found} == {}
