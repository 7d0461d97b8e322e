"""Databases that the library refuses to launch on, or cannot reach: what it says, and that nothing is left behind."""

from __future__ import annotations

import importlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, StaticPool, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import scoped_session, sessionmaker

from dbos_orm import DBOS, AsyncDBOS, Config, schema
from dbos_orm._dialects import _urls
from dbos_orm._store.revision import HEAD, VERSION_TABLE
from dbos_orm.errors import ConfigurationError, DatabaseUnavailableError, SchemaVersionError
from tests.databases import POSTGRESQL, TestDatabase
from tests.integration.shop import Statements
from tests.integration.test_bad_input import assert_in_style
from tests.postgres_server import PostgresServer


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that is ours and refuses connections."""
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        yield ours.getsockname()[1]


IMPATIENT = Config(launch_timeout=0.5)


# -- the schema ----------------------------------------------------------------------------------


def test_missing_tables_are_reported_with_the_command(empty_database: TestDatabase) -> None:
    dbos = DBOS(empty_database.make_engine(), name="shop")
    with pytest.raises(SchemaVersionError) as caught:
        dbos.launch()
    error = caught.value
    assert (error.found, error.expected, error.command) == (None, HEAD, "dbos-orm migrate")
    assert "the database has no tables of dbos_orm" in str(error)
    assert not dbos.is_launched


async def test_missing_tables_are_reported_to_coroutines(empty_database: TestDatabase) -> None:
    dbos = AsyncDBOS(empty_database.make_async_engine(), name="shop")
    with pytest.raises(SchemaVersionError):
        await dbos.launch()
    async with dbos.launch(migrate=True):
        assert dbos.is_launched


@pytest.mark.parametrize(("found", "command"), [("0000", "pip install"), ("9999", "pip install")])
def test_another_revision_is_reported(database: TestDatabase, found: str, command: str) -> None:
    set_revision(database, found)
    with pytest.raises(SchemaVersionError, match=f"is at schema revision '{found}'") as caught:
        DBOS(database.make_engine(), name="shop").launch()
    assert caught.value.found == found
    assert command in caught.value.command


def test_tables_of_a_newer_library_are_not_migrated(database: TestDatabase) -> None:
    set_revision(database, "9999")
    with pytest.raises(SchemaVersionError):
        DBOS(database.make_engine(), name="shop").launch(migrate=True)


def test_an_older_schema_is_migrated_only_on_request(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = database.make_engine()
    schema.downgrade(engine, "base")
    dbos = DBOS(engine, name="shop")
    with pytest.raises(SchemaVersionError, match="run: dbos-orm migrate"):
        dbos.launch()
    with dbos.launch(migrate=True):
        assert dbos.is_launched
    with dbos.launch():
        assert dbos.is_launched


def set_revision(database: TestDatabase, revision: str) -> None:
    with database.make_engine().begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :revision"), {"revision": revision})


# -- SQLite --------------------------------------------------------------------------------------


def plain_sqlite(database: TestDatabase) -> Engine:
    return create_engine(database.url)


def without_begin(database: TestDatabase) -> Engine:
    engine = create_engine(database.url)
    set_pragmas(engine, "journal_mode = WAL", "synchronous = FULL", "busy_timeout = 30000")
    return engine


def without_patience(database: TestDatabase) -> Engine:
    engine = begin_immediately(create_engine(database.url, connect_args={"timeout": 0}))
    set_pragmas(engine, "journal_mode = WAL", "synchronous = FULL")
    return engine


def without_full(database: TestDatabase) -> Engine:
    engine = begin_immediately(create_engine(database.url))
    set_pragmas(engine, "journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 30000")
    return engine


def set_pragmas(engine: Engine, *pragmas: str) -> None:
    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")


def begin_immediately(engine: Engine) -> Engine:
    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@pytest.mark.parametrize(
    ("make", "missing"),
    [
        (plain_sqlite, "transactions do not begin with BEGIN IMMEDIATE"),
        (without_begin, "transactions do not begin with BEGIN IMMEDIATE"),
        (without_patience, "busy_timeout is 0 ms, expected 30000"),
        (without_full, r"synchronous is 1, expected 2 \(FULL\)"),
    ],
)
def test_a_sqlite_engine_that_would_lose_updates_is_refused(
    sqlite_database: TestDatabase, make: Callable[[TestDatabase], Engine], missing: str
) -> None:
    engine = make(sqlite_database)
    dbos = DBOS(engine, name="shop")
    with pytest.raises(ConfigurationError, match=missing) as caught:
        dbos.launch()
    engine.dispose()
    assert caught.value.field == "engine"
    assert "dbos_orm.sqlite_engine(url)" in str(caught.value)
    assert_in_style(caught.value)
    assert not dbos.is_launched


async def test_an_async_sqlite_engine_that_would_lose_updates_is_refused(sqlite_database: TestDatabase) -> None:
    engine = create_async_engine(sqlite_database.async_url)
    with pytest.raises(ConfigurationError, match=r"async_sqlite_engine\(url\)"):
        await AsyncDBOS(engine, name="shop").launch()
    await engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:shop?mode=memory&uri=true"])
def test_sqlite_in_memory_is_refused(url: str) -> None:
    engine = create_engine(url, poolclass=StaticPool)
    makes: list[Callable[[], object]] = [
        lambda: DBOS(engine, name="shop").launch(),
        lambda: DBOS(name="shop").bind(engine),
        lambda: DBOS(name="shop").bind(sessionmaker(engine)),
    ]
    for make in makes:
        with pytest.raises(ConfigurationError, match="expected a SQLite database in a file; what is in memory"):
            make()
    engine.dispose()


async def test_sqlite_in_memory_is_refused_for_coroutines() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(ConfigurationError, match="expected a SQLite database in a file"):
        await AsyncDBOS(engine, name="shop").launch()
    await engine.dispose()


# -- what is bound -------------------------------------------------------------------------------


def test_a_maker_without_an_engine_is_refused() -> None:
    for bind in (sessionmaker(), scoped_session(sessionmaker())):
        with pytest.raises(ConfigurationError, match="that tells its engine") as caught:
            DBOS(name="shop").bind(bind)
        assert_in_style(caught.value)


def test_each_colour_refuses_the_others_engine(sqlite_database: TestDatabase) -> None:
    sync_engine: Any = sqlite_database.make_engine()
    async_engine: Any = AsyncEngine(create_async_engine(sqlite_database.async_url).sync_engine)
    with pytest.raises(ConfigurationError, match="use AsyncDBOS for an AsyncEngine") as caught:
        DBOS(name="shop").bind(async_engine)
    assert_in_style(caught.value)
    with pytest.raises(ConfigurationError, match="use DBOS for an Engine") as caught:
        AsyncDBOS(name="shop").bind(sync_engine)
    assert_in_style(caught.value)


def test_another_database_is_refused() -> None:
    engine = create_engine("sqlite:///unused.db")
    engine.dialect.name = "oracle"
    with pytest.raises(ConfigurationError, match=r"a database of \['postgresql', 'sqlite'\]") as caught:
        DBOS(name="shop").bind(engine)
    assert_in_style(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_urls, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install psycopg2-binary") as caught:
        DBOS(name="shop").bind("postgresql://user:secret@localhost/shop")
    assert "secret" not in str(caught.value)
    assert importlib.util.find_spec("psycopg2") is not None


# -- a database that does not answer -------------------------------------------------------------


def test_a_database_that_does_not_answer_is_waited_for_visibly(caplog: pytest.LogCaptureFixture) -> None:
    with closed_port() as port, caplog.at_level(logging.WARNING, "dbos_orm"):
        dbos = DBOS(f"postgresql://user:secret@127.0.0.1:{port}/shop", name="shop", config=IMPATIENT)
        with pytest.raises(DatabaseUnavailableError) as caught:
            dbos.launch()
    assert caught.value.seconds <= 5
    assert caplog.messages != []
    assert all("trying for" in message for message in caplog.messages)
    assert "secret" not in f"{caplog.text}{caught.value}"
    assert not dbos.is_launched
    assert_in_style(caught.value)


async def test_coroutines_wait_visibly_too(caplog: pytest.LogCaptureFixture) -> None:
    with closed_port() as port, caplog.at_level(logging.WARNING, "dbos_orm"):
        dbos = AsyncDBOS(f"postgresql://user:secret@127.0.0.1:{port}/shop", name="shop", config=IMPATIENT)
        with pytest.raises(DatabaseUnavailableError):
            await dbos.launch()
    assert caplog.messages != []


def test_a_database_that_comes_up_in_time_is_launched_on(
    private_postgres: PostgresServer, private_database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    private_postgres.stop()
    is_waiting = threading.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            is_waiting.set()

    def bring_up() -> None:
        assert is_waiting.wait(30)
        private_postgres.start()

    watch = Watch()
    logging.getLogger("dbos_orm").addHandler(watch)
    starter = threading.Thread(target=bring_up)
    starter.start()
    try:
        with DBOS(private_database.make_engine(), name="shop") as dbos:
            assert dbos.is_launched
    finally:
        logging.getLogger("dbos_orm").removeHandler(watch)
        starter.join()


def test_a_refused_password_is_not_waited_for(
    postgresql_database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    missing = postgresql_database.url.set(database="no_such_database")
    with pytest.raises(DatabaseUnavailableError, match="no_such_database") as caught:
        DBOS(missing, name="shop", config=Config(launch_timeout=30)).launch()
    assert caught.value.seconds < 10
    assert postgresql_database.backend == POSTGRESQL


def test_a_sqlite_file_that_cannot_be_opened_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        DBOS(f"sqlite:///{tmp_path}/missing/shop.db", name="shop").launch()
    assert caught.value.seconds < 10
    assert "unable to open database file" in str(caught.value)


def test_a_failed_launch_leaves_no_thread_and_no_connection(database: TestDatabase) -> None:
    before = set(threading.enumerate())
    engine = database.make_engine()
    Statements(engine)
    set_revision(database, "9999")
    for _ in range(3):
        with pytest.raises(SchemaVersionError):
            DBOS(engine, name="shop").launch()
    assert set(threading.enumerate()) == before
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
