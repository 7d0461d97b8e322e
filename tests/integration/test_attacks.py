"""What an unfriendly user might do: engines with odd settings, odd texts, and functions that end oddly."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Config, WorkflowState
from dbos_orm.errors import ConfigurationError, MaxRecoveryAttemptsExceededError
from tests.databases import TestDatabase
from tests.integration.shop import Base, Item, launched, names_of_items
from tests.processes import PATIENCE


@pytest.mark.parametrize("isolation_level", ["SERIALIZABLE", "AUTOCOMMIT"])
def test_execution_options_of_the_engine_do_not_end_autocommit(database: TestDatabase, isolation_level: str) -> None:
    """Else nothing of ours is committed, or a transactional step commits its rows without its checkpoint."""
    if database.backend == "postgresql" and isolation_level == "AUTOCOMMIT":
        pytest.skip("refused: the next test")
    engine = database.make_engine().execution_options(isolation_level=isolation_level)
    with launched(database, engine=engine) as dbos:

        @dbos.transaction
        def add(session: Session, name: str) -> None:
            session.add(Item(name=name))
            session.flush()
            if name == "wrong":
                raise ValueError(name)

        @dbos.workflow
        def work() -> None:
            add("right")
            add("wrong")

        with pytest.raises(ValueError, match="wrong"):
            work.options(workflow_id="w")()
        assert dbos.handle("w").status() is WorkflowState.ERROR
        assert len(dbos.handle("w").steps()) == 2
    assert names_of_items(database) == ["right"]


@pytest.mark.parametrize("in_options", [True, False])
def test_an_engine_in_autocommit_is_refused(postgresql_database: TestDatabase, in_options: bool) -> None:
    level: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    engine = postgresql_database.make_engine(**({"execution_options": level} if in_options else level))
    with pytest.raises(ConfigurationError, match="it is in AUTOCOMMIT"):
        DBOS(engine, name="shop").launch()


def test_a_transaction_in_autocommit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a level that has transactions"):

        @DBOS(name="shop").transaction(isolation_level="autocommit")
        def add(session: Session) -> None: ...


def test_the_schema_of_a_schema_translate_map_is_written(postgresql_database: TestDatabase) -> None:
    plain = postgresql_database.make_engine()
    with plain.begin() as connection:
        connection.execute(text("CREATE SCHEMA workflows"))
    engine = plain.execution_options(schema_translate_map={None: "workflows"})
    Base.metadata.create_all(engine)
    with DBOS(engine, name="shop").launch(migrate=True) as dbos:

        @dbos.transaction
        def add(session: Session, name: str) -> None:
            session.add(Item(name=name))

        @dbos.workflow
        def work(name: str) -> None:
            add(name)
            dbos.sleep(0)

        work("a")
        work.start("b").result(PATIENCE)
    with plain.connect() as connection:
        for table, count in {"workflow_status": 2, "step_output": 4}.items():
            assert connection.scalar(text(f"SELECT count(*) FROM workflows.dbos_{table}")) == count
            assert connection.scalar(text(f"SELECT count(*) FROM public.dbos_{table}")) == 0


def test_one_connection_is_enough_for_the_user(database: TestDatabase) -> None:
    engine = database.make_engine(pool_size=1, max_overflow=0, pool_timeout=1)
    with launched(database, engine=engine) as dbos:

        @dbos.workflow
        def work() -> str:
            return "done"

        assert work() == "done"


@pytest.mark.parametrize("workflow_id", ["\ud800", "\x00", "日" * 334, ""])
def test_an_id_that_no_index_can_hold_is_refused(dbos: DBOS, workflow_id: str) -> None:
    @dbos.workflow
    def work() -> None: ...

    with pytest.raises(ConfigurationError, match="a text of 1 to 1000 bytes in UTF-8"):
        work.options(workflow_id=workflow_id)


@pytest.mark.parametrize("value", [{"a": "\x00"}, {"\x00": 1}, {"a": [{"b": ("\ud800",)}]}])
def test_attributes_that_no_database_can_hold_are_refused(dbos: DBOS, value: dict[str, Any]) -> None:
    @dbos.workflow
    def work() -> None: ...

    with pytest.raises(ConfigurationError, match="texts that a database can hold"):
        work.options(attributes=value)


@pytest.mark.parametrize("deadline", [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)])
def test_a_deadline_that_has_no_local_time_is_refused(dbos: DBOS, deadline: datetime) -> None:
    """Read in the zone of the server its year has five digits: the row would keep all others from being claimed."""

    @dbos.workflow
    def work() -> None: ...

    with pytest.raises(ConfigurationError, match="in the years 2 to 9998"):
        work.options(deadline=deadline)


async def test_a_plain_step_may_raise_stop_iteration(async_dbos: AsyncDBOS) -> None:
    """A future refuses that error, and would never be done."""

    @async_dbos.step
    def first() -> int:
        return next(iter(()))

    @async_dbos.workflow
    async def work() -> str:
        try:
            await first()
        except RuntimeError as error:
            return str(error)
        return "not reached"

    assert await asyncio.wait_for(work(), PATIENCE) == "coroutine raised StopIteration"


def test_a_workflow_that_exits_is_given_up_and_not_run_for_ever(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="exits", config=Config(tick=0.02, max_recovery_attempts=2))
    runs: list[int] = []

    @dbos.workflow
    def leave() -> None:
        runs.append(1)
        raise SystemExit(3)

    with dbos.launch(), pytest.raises(MaxRecoveryAttemptsExceededError):
        leave.start().result(timeout=PATIENCE)
    assert len(runs) == 3
