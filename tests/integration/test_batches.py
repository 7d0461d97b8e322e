"""Many workflows' entries in one write: each is told its own fate, whatever the others' is."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
from sqlalchemy import select

from dbos_orm import DBOS, AsyncDBOS
from dbos_orm._drivers.gateway import Gateway
from dbos_orm._identifiers import random_token
from dbos_orm._store import checkpoints
from dbos_orm._store.entries import AttemptEntry, Entry, RunFinish, RunStart, StepEntry
from dbos_orm.models import StepOutput, WorkflowStatus
from tests.conftest import MakeDatabase
from tests.databases import POSTGRESQL, TestDatabase
from tests.integration.shop import reading

DRIVERS = {
    "postgresql": ["postgresql+psycopg2", "postgresql+psycopg", "postgresql+asyncpg"],
    "sqlite": ["sqlite", "sqlite+aiosqlite"],
}
OURS = "the owner's token"
INSTANT = "2026-11-22T12:00:00.000000+05:45"
ODD = "a \"quoted\" \\ back\\slashed ':percent' %s %(x)s {brace} é ☃ 💡\n\ttext"
"""What the driver, SQL and JSON each have rules of their own for."""


def gateway_of(database: TestDatabase, driver: str) -> Gateway:
    url = database.url.set(drivername=driver)
    kind = AsyncDBOS if "async" in driver or "aio" in driver else DBOS
    return kind(url, name="shop")._runtime.bound("test").gateway


def write(gateway: Gateway, *entries: Entry) -> set[int]:
    """Write as the committer does."""

    def call() -> set[int]:
        connection = gateway.dialect.direct_connection(gateway.engine)
        try:
            is_single = checkpoints.is_single_statement(gateway.dialect, entries)
            if not is_single:
                connection.execute(gateway.dialect.begin)
            written = checkpoints.write(connection, gateway.dialect, entries)
            if not is_single:
                connection.execute("COMMIT")
            return written
        finally:
            connection.close()

    return gateway.blocking(call)


def start(workflow_id: str, *, parent: str | None = None) -> RunStart:
    return RunStart(
        workflow_id, "shop", ODD, "1", True, random_token(), '"input"', "json", "me", OURS, None, 60_000_000, INSTANT,
        parent, None if parent is None else "1", '{"a": 1}', None, None, workflow_id,
    )  # fmt: skip


write_ids = itertools.count(2**62)


def step(workflow_id: str, number: int = 1, *, token: str = OURS, child: RunStart | None = None) -> StepEntry:
    return StepEntry(
        workflow_id, "", number, token, next(write_ids), ODD, "step", r'"\u0000 and more"', None, "json", 1, INSTANT,
        None if child is None else child.workflow_id, None, child,
    )  # fmt: skip


def attempt(workflow_id: str) -> AttemptEntry:
    return AttemptEntry(workflow_id, "", 9, 1, OURS, next(write_ids), ODD, '{"error": 1}', "json", INSTANT, 1_000_000)


def finish(workflow_id: str, *, token: str = OURS) -> RunFinish:
    return RunFinish(workflow_id, token, "SUCCESS", '["output"]', None, "json")


@pytest.fixture(params=[*DRIVERS["postgresql"], *DRIVERS["sqlite"]])
def shop(request: pytest.FixtureRequest, make_database: MakeDatabase) -> tuple[Gateway, TestDatabase]:
    """A way to a database, through every driver."""
    database = make_database("sqlite" if "sqlite" in request.param else POSTGRESQL)
    return gateway_of(database, request.param), database


def test_entries_of_every_kind_are_written_together(shop: tuple[Gateway, TestDatabase]) -> None:
    gateway, database = shop
    assert write(gateway, *(start(name) for name in "dcba")) == {0, 1, 2, 3}
    child = start("a-1", parent="a")
    batch: list[Any] = [
        finish("d"),
        step("b"),
        start("new"),
        step("a", child=child),
        attempt("c"),
        step("b", 2),
        start("d"),  # is there
        step("c", token="stale"),
        finish("c", token="stale"),
        step("nobody"),
    ]
    assert write(gateway, *batch) == {0, 1, 2, 3, 4, 5}
    assert write(gateway, *batch) == set()
    with reading(database) as session:
        rows = {row.workflow_id: row for row in session.scalars(select(WorkflowStatus))}
        steps = session.scalars(select(StepOutput)).all()
        assert set(rows) == {"a", "b", "c", "d", "new", "a-1"}
        assert (rows["d"].status, rows["d"].output) == ("SUCCESS", '["output"]')
        assert (rows["a-1"].parent_id, rows["a-1"].generation) == ("a", child.generation)
        assert {(row.name, str(row.attributes), row.version_pinned) for row in rows.values()} == {
            (ODD, "{'a': 1}", True)
        }
        recorded = {(row.workflow_id, row.step_id, row.write_id) for row in steps}
        assert recorded == {(e.workflow_id, e.step_id, e.write_id) for e in (batch[1], batch[3], batch[5])}
        assert {row.name for row in steps} == {ODD}
        assert {row.output for row in steps} == {r'"\u0000 and more"'}


def test_a_child_is_written_only_with_its_parents_record_of_it(shop: tuple[Gateway, TestDatabase]) -> None:
    gateway, database = shop
    write(gateway, start("a"), start("b"))
    stranger, orphan = start("a-1", parent="a"), start("b-1", parent="b")
    batch: list[Entry] = [step("a", child=stranger), step("b", child=orphan, token="stale"), start("c")]
    assert write(gateway, *batch) == {0, 2}
    assert write(gateway, step("b", child=orphan, token="stale")) == set()
    with reading(database) as session:
        assert set(session.scalars(select(WorkflowStatus.workflow_id))) == {"a", "b", "c", "a-1"}


def test_a_row_twice_in_a_batch_is_written_once(shop: tuple[Gateway, TestDatabase]) -> None:
    gateway, _ = shop
    assert len(write(gateway, start("a"), start("a"))) == 1


def test_what_comes_again_is_planned_once(make_database: MakeDatabase) -> None:
    """With psycopg2, which does not see to it itself; behind a pooler that loses it, it is sent as text again."""
    gateway = gateway_of(make_database(POSTGRESQL), "postgresql+psycopg2")
    connection = gateway.dialect.direct_connection(gateway.engine)

    def write_one() -> set[int]:
        return checkpoints.write(connection, gateway.dialect, [start(f"w{next(write_ids)}")])

    def count_prepared() -> Any:
        return connection.execute("SELECT count(*), sum(generic_plans + custom_plans) FROM pg_prepared_statements")[0]

    assert [write_one() for _ in range(10)] == [{0}] * 10
    prepared, executed = count_prepared()
    assert prepared == 1
    assert 0 < executed < 10
    connection.execute("DEALLOCATE ALL")  # what another process of the server is like
    assert [write_one() for _ in range(10)] == [{0}] * 10
    assert count_prepared()[0] == 0
    another = gateway.dialect.direct_connection(gateway.engine)
    for _ in range(5):
        assert checkpoints.write(another, gateway.dialect, [start(f"w{next(write_ids)}")]) == {0}
    assert another.execute("SELECT count(*) FROM pg_prepared_statements")[0][0] == 0
    another.close()
    connection.close()


def test_a_batch_reads_no_whole_table(make_database: MakeDatabase, caplog: pytest.LogCaptureFixture) -> None:
    """Also by a plan that was made when the tables were empty, which drivers with prepared statements keep."""
    database = make_database(POSTGRESQL)
    gateway = gateway_of(database, "postgresql+psycopg2")
    engine = database.make_engine(isolation_level="AUTOCOMMIT")
    entries: list[Entry] = [step("a"), step("b", child=start("c", parent="b")), start("d"), attempt("a"), finish("e")]
    with caplog.at_level(logging.DEBUG, "dbos_orm.sql"):
        write(gateway, *entries)
    query = caplog.messages[-1]
    rows = "SELECT 'w' || n, 'shop', 'work', false, 'g', 'json', 'SUCCESS', '', now(), now(), 0"
    columns = (
        "workflow_id, application, name, version_pinned, generation, serializer, status, sequence, created_at, "
        "updated_at, recovery_attempts"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
        for place, name in enumerate(["attempt", "child", "rare_step", "run_finish", "run_start", "step"], 1):
            query = query.replace(f"%({name})s", f"${place}")
        connection.exec_driver_sql(f"PREPARE batch (text, text, text, text, text, text) AS {query}")
        explain = "EXPLAIN EXECUTE batch ('[]', '[]', '[]', '[]', '[]', '[]')"
        before = connection.exec_driver_sql(explain).scalars().all()
        connection.exec_driver_sql(
            f"INSERT INTO dbos_workflow_status ({columns}) {rows} FROM generate_series(1, 2000) AS n"
        )
        connection.exec_driver_sql("ANALYZE dbos_workflow_status")
        after = connection.exec_driver_sql(explain).scalars().all()
    assert not [line for line in [*before, *after] if "Seq Scan" in line]
    assert [line for line in after if "Index Scan using pk_dbos_workflow_status" in line]
