"""What is wrong with a second database, or with how it is used: said clearly, and never a step's outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from dbos_orm import DBOS, WorkflowState, schema
from dbos_orm.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    DBOSError,
    SessionMisuseError,
    TransactionOutputMissingError,
)
from dbos_orm.models import StepOutput, TransactionOutput
from tests.conftest import MakeDatabase
from tests.databases import POSTGRESQL, SQLITE, TestDatabase
from tests.integration.pairs import Pair, make_pair
from tests.integration.shop import Base, Item, count_of, launched, launched_async, names_of_items
from tests.integration.test_bad_input import assert_in_style
from tests.postgres_server import PostgresServer
from tests.processes import PATIENCE, eventually


def add_item(session: Session, name: str) -> str:
    session.add(Item(name=name))
    return name


async def add_item_async(session: AsyncSession, name: str) -> str:
    session.add(Item(name=name))
    return name


def works_later(
    dbos: DBOS, maker: sessionmaker[Session], kind: type[DBOSError], mend: Callable[[], object]
) -> DBOSError:
    """The error that a direct call gets; its workflow ends well all the same as soon as that is mended."""
    add = dbos.transaction(sessionmaker=maker, name="add")(add_item)

    @dbos.workflow
    def work() -> str:
        return add("tea")

    with pytest.raises(kind) as plain:
        add("milk")
    with pytest.raises(kind) as caught:
        work.options(workflow_id="w")()
    assert_in_style(caught.value)
    assert str(plain.value) == str(caught.value)
    assert dbos.handle("w").status() in (WorkflowState.PENDING, WorkflowState.ENQUEUED)
    mend()
    assert dbos.handle("w").result(PATIENCE) == "tea"
    assert dbos.handle("w").describe().recovery_attempts == 0
    (step,) = dbos.handle("w").steps()
    assert step.error is None
    return caught.value


@pytest.fixture
def dbos(pair: Pair) -> Iterator[DBOS]:
    with launched(pair.main) as application:
        yield application


def drop_table(pair: Pair) -> None:
    with pair.other.make_engine().begin() as connection:
        TransactionOutput.__table__.drop(connection)


def create_table(pair: Pair) -> None:
    with pair.other.make_engine().begin() as connection:
        schema.create_transaction_output(connection)


def test_a_missing_table_is_told_with_the_command_and_fails_no_workflow(dbos: DBOS, pair: Pair) -> None:
    drop_table(pair)
    error = works_later(dbos, pair.maker(), TransactionOutputMissingError, lambda: create_table(pair))
    assert isinstance(error, TransactionOutputMissingError)
    assert "run: dbos-orm migrate --transaction-output " in str(error)
    assert error.table == "dbos_transaction_output"


def test_a_table_that_is_dropped_meanwhile_fails_no_workflow_either(dbos: DBOS, pair: Pair) -> None:
    maker = pair.maker()
    warm_up = dbos.transaction(sessionmaker=maker, name="warm up")(add_item)
    warm_up("warm")
    drop_table(pair)
    add = dbos.transaction(sessionmaker=maker, name="add")(add_item)

    @dbos.workflow
    def work() -> str:
        return add("tea")

    with pytest.raises(TransactionOutputMissingError):
        work.options(workflow_id="w")()
    create_table(pair)
    assert dbos.handle("w").result(PATIENCE) == "tea"
    assert names_of_items(pair.other) == ["tea", "warm"]


def test_a_launch_that_may_migrate_creates_the_table(pair: Pair) -> None:
    drop_table(pair)
    with DBOS(pair.main.make_engine(), name="shop").launch(migrate=True) as dbos:
        add = dbos.transaction(sessionmaker=pair.maker())(add_item)

        @dbos.workflow
        def work() -> str:
            return add("tea")

        assert work() == "tea"
    assert len(pair.outputs()) == 1


def test_a_maker_without_an_engine_is_told_and_fails_no_workflow(dbos: DBOS, pair: Pair) -> None:
    maker = sessionmaker[Session]()
    engine = pair.other.make_engine()
    error = works_later(dbos, maker, ConfigurationError, lambda: maker.configure(bind=engine))
    assert "call its configure(bind=engine) before" in str(error)


def test_an_engine_whose_settings_break_the_guarantees_is_told(dbos: DBOS, pair: Pair) -> None:
    bad: Engine = create_engine(pair.other.url, isolation_level="AUTOCOMMIT")
    maker, good = sessionmaker(bad), pair.other.make_engine()
    error = works_later(dbos, maker, ConfigurationError, lambda: maker.configure(bind=good))
    assert "settings that keep the guarantees" in str(error)
    bad.dispose()


def test_a_database_that_does_not_exist_is_told(make_database: MakeDatabase) -> None:
    pair = make_pair(make_database, SQLITE, POSTGRESQL)
    missing, good = create_engine(pair.other.url.set(database="no_such_database")), pair.other.make_engine()
    maker = sessionmaker(missing)
    with launched(pair.main) as dbos:
        error = works_later(dbos, maker, DatabaseUnavailableError, lambda: maker.configure(bind=good))
    assert "no_such_database" in str(error)
    missing.dispose()


def test_a_parent_does_not_record_that_its_child_cannot_run_here(dbos: DBOS, pair: Pair) -> None:
    maker = sessionmaker[Session]()
    add = dbos.transaction(sessionmaker=maker)(add_item)

    @dbos.workflow
    def child() -> str:
        return add("tea")

    @dbos.workflow
    def parent() -> str:
        return child()

    with pytest.raises(ConfigurationError):
        parent.options(workflow_id="w")()
    maker.configure(bind=pair.other.make_engine())
    assert dbos.handle("w").result(PATIENCE) == "tea"


def test_transactions_on_two_databases_are_not_nested(dbos: DBOS, pair: Pair) -> None:
    other = dbos.transaction(sessionmaker=pair.maker(), name="other")(add_item)
    main = dbos.transaction(name="main")(add_item)

    @dbos.transaction
    def main_first(session: Session) -> str:
        return other("tea")

    @dbos.transaction(sessionmaker=pair.maker())
    def other_first(session: Session) -> str:
        add_item(session, "milk")
        return main("tea")

    @dbos.workflow
    def work(name: str) -> str:
        return main_first() if name == "main" else other_first()

    calls: list[tuple[Callable[[], object], str]] = [
        (main_first, "other"),
        (other_first, "main"),
        (lambda: work("main"), "other"),
        (lambda: work("other"), "main"),
    ]
    for call, inner in calls:
        with pytest.raises(SessionMisuseError, match="two databases do not commit together") as caught:
            call()
        assert_in_style(caught.value)
        assert f"transaction '{inner}' on " in str(caught.value)
    assert (names_of_items(pair.main), names_of_items(pair.other)) == ([], [])


def test_a_workflow_is_not_started_in_a_transaction_elsewhere(dbos: DBOS, pair: Pair) -> None:
    @dbos.workflow
    def work() -> None: ...

    @dbos.transaction(sessionmaker=pair.maker())
    def start(session: Session) -> None:
        work.start()

    with pytest.raises(SessionMisuseError, match="is of another database than the application's"):
        start()


@pytest.fixture
def two_servers(make_database: MakeDatabase, private_database: TestDatabase) -> Pair:
    """A second database on a server that can be stopped."""
    engine = private_database.make_engine()
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        schema.create_transaction_output(connection)
    return Pair(make_database(SQLITE), private_database)


def test_a_step_waits_for_a_second_database_that_is_away(two_servers: Pair, private_postgres: PostgresServer) -> None:
    with launched(two_servers.main) as dbos:
        add = dbos.transaction(sessionmaker=two_servers.maker(pool_pre_ping=True))(add_item)

        @dbos.workflow
        def work(name: str) -> str:
            return add(name)

        assert work("first") == "first"
        private_postgres.stop()
        handles = [work.start(name) for name in ("second", "third")]
        eventually(lambda: all(handle.status() == WorkflowState.PENDING for handle in handles))
        private_postgres.start()
        assert [handle.result(PATIENCE) for handle in handles] == ["second", "third"]
    assert count_of(two_servers.main, StepOutput, error=None) == 3
    assert names_of_items(two_servers.other) == ["first", "second", "third"]


def test_a_step_that_loses_its_connection_there_is_tried_again(two_servers: Pair) -> None:
    calls = []
    with launched(two_servers.main) as dbos:

        @dbos.transaction(sessionmaker=two_servers.maker())
        def add(session: Session) -> str:
            calls.append(1)
            add_item(session, "tea")
            session.flush()
            if len(calls) == 1:
                session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return "tea"

        @dbos.workflow
        def work() -> str:
            return add()

        assert work() == "tea"
    assert len(calls) == 2
    assert names_of_items(two_servers.other) == ["tea"]


def test_two_threads_may_meet_a_second_database_for_the_first_time(dbos: DBOS, pair: Pair) -> None:
    add = dbos.transaction(sessionmaker=pair.maker())(add_item)
    barrier = threading.Barrier(4)

    @dbos.workflow
    def work(number: int) -> str:
        barrier.wait(PATIENCE)
        return add(str(number))

    handles = [work.start(number) for number in range(4)]
    assert sorted(handle.result(PATIENCE) for handle in handles) == ["0", "1", "2", "3"]


# -- with asyncio --------------------------------------------------------------------------------


async def test_coroutines_are_told_of_a_missing_table_and_of_a_wrong_engine(pair: Pair) -> None:
    drop_table(pair)
    sync_engine: Any = pair.other.make_engine()
    makers: list[tuple[Any, type[DBOSError], str]] = [
        (pair.async_maker(), TransactionOutputMissingError, "run: dbos-orm migrate"),
        (async_sessionmaker(), ConfigurationError, "an AsyncEngine"),
        (async_sessionmaker(sync_engine), ConfigurationError, "an AsyncEngine"),
    ]
    async with launched_async(pair.main) as dbos:
        for number, (maker, kind, words) in enumerate(makers):
            add = dbos.transaction(sessionmaker=maker, name=f"add {number}")(add_item_async)
            with pytest.raises(kind, match=words) as caught:
                await add("tea")
            assert_in_style(caught.value)


async def test_transactions_of_coroutines_on_two_databases_are_not_nested(pair: Pair) -> None:
    async with launched_async(pair.main) as dbos:
        other = dbos.transaction(sessionmaker=pair.async_maker(), name="other")(add_item_async)
        main = dbos.transaction(name="main")(add_item_async)

        @dbos.transaction
        async def main_first(session: AsyncSession) -> str:
            return await other("tea")

        @dbos.transaction(sessionmaker=pair.async_maker())
        async def other_first(session: AsyncSession) -> str:
            return await main("tea")

        @dbos.workflow
        async def work() -> str:
            return await main_first()

        for call in (main_first, other_first, work):
            with pytest.raises(SessionMisuseError, match="two databases do not commit together"):
                await call()
    assert (names_of_items(pair.main), names_of_items(pair.other)) == ([], [])
