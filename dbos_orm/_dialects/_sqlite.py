"""SQLite 3.35 and later, in a file, with the standard library's driver or aiosqlite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Select,
    SQLColumnExpression,
    Table,
    Text,
    cast,
    create_engine,
    event,
    func,
    literal,
    literal_column,
    type_coerce,
)
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError

from dbos_orm._clock import Clock
from dbos_orm._dialects._base import Dialect, Fault
from dbos_orm.config import Config, seconds
from dbos_orm.errors import ConfigurationError
from dbos_orm.models import Instant

_DAY_SECONDS: Final = 86_400.0
_FORMAT: Final = "%Y-%m-%d %H:%M:%f"
_SYNCHRONOUS_FULL: Final = 2
_OTHER_LOCKING: Final = ("vfs=", "nolock=", "immutable=")
"""Settings of a file's URI (https://sqlite.org/uri.html) with which a connection does not see another one's locks."""


class SQLiteDialect(Dialect):
    """One writer at a time in the whole file; the process has the clock, because there is only one host."""

    begin: ClassVar[str] = "BEGIN IMMEDIATE"
    single_writer: ClassVar[bool] = True
    remedy: ClassVar[str] = "make the engine with dbos_orm.sqlite_engine(url), or async_sqlite_engine(url)"
    locks_rows: ClassVar[bool] = False
    takes_many_rows: ClassVar[bool] = False

    def __init__(self, engine: Engine, clock: Clock, config: Config) -> None:
        super().__init__(engine, clock, config)
        self._url = engine.url.render_as_string()

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def now(self) -> ColumnElement[datetime]:
        return self.clock_parameter()

    def plus_microseconds(
        self, instant: ColumnElement[Any], microseconds: SQLColumnExpression[Any]
    ) -> ColumnElement[datetime]:
        # SQLite computes with milliseconds; the stored form has six digits and an offset.
        # As a plain number: a column of durations would take the divisor for one.
        duration = type_coerce(microseconds, BigInteger) / literal(1_000_000.0, Double)
        moved = func.strftime(_FORMAT, instant, cast(duration, Text) + literal(" seconds"))
        return type_coerce(func.replace(moved, " ", "T") + literal("000+00:00"), Instant())

    def seconds_until(self, instant: SQLColumnExpression[Any]) -> ColumnElement[float | None]:
        return cast((func.julianday(instant) - func.julianday(self.now())) * _DAY_SECONDS, Double)

    def instant_from_text(self, text: ColumnElement[str]) -> ColumnElement[datetime]:
        return type_coerce(text, Instant())

    def instant_parameter(self) -> str:
        return self.clock.now().isoformat(timespec="microseconds")

    def attributes_from_text(self, text: ColumnElement[str]) -> ColumnElement[Any]:
        return text

    def lock_bound(self) -> ColumnElement[bool]:
        return literal_column("1 = 1", Boolean)

    def idle_bound(self) -> ColumnElement[bool]:
        return literal_column("1 = 1", Boolean)

    def relaxed_commit(self) -> ColumnElement[bool]:
        return literal_column("1 = 1", Boolean)

    def is_one_of(self, value: ColumnElement[Any], found: Select[Any]) -> ColumnElement[bool]:
        return value.in_(found)

    def json_rows(self, columns: Sequence[SQLColumnExpression[Any]]) -> ColumnElement[str]:
        return func.json_group_array(func.json_array(*columns), type_=Text())

    def bound_locks(self, connection: Connection) -> None:
        # There is one lock, the busy timeout bounds it, and our own transactions take turns.
        return None

    def is_autocommit(self, connection: Connection) -> bool:
        driver = connection.connection.driver_connection
        assert driver is not None
        return driver.isolation_level is None and not driver.in_transaction

    def limit_statements(self, connection: Connection, timeout: timedelta) -> None:
        # It has no such limit; the driver could interrupt a statement, but only from another thread.
        return None

    def driver_fault(self, error: BaseException) -> Fault:
        cause = getattr(error, "orig", None) or error
        message = str(cause)
        if "locked" in message or "busy" in message:
            return Fault.CONFLICT
        if "closed" in message or "no active connection" in message:
            return Fault.DISCONNECTED
        return Fault.REJECTED

    @property
    def can_watch(self) -> bool:
        # With an asynchronous driver it is watched over the standard library's, which must lock the file the same way.
        return not self.driver.is_async or not any(name in self._url for name in _OTHER_LOCKING)

    def prepare_own_engine(self, engine: Engine) -> None:
        prepare_sqlite_connections(engine, busy_timeout=seconds(self.config.sqlite_busy_timeout), begin=False)

    def identity(self, connection: Connection) -> object:
        files = connection.exec_driver_sql("PRAGMA database_list").all()
        name = next(row.file for row in files if row.name == "main")
        # A database in memory has no name, and no other connection.
        return ("sqlite", str(Path(name).resolve())) if name else object()

    def probe(self, engine: Engine) -> Iterable[str]:
        with engine.connect() as connection:
            timeout, synchronous = (
                connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()
                for pragma in ("busy_timeout", "synchronous")
            )
            journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        if journal != "wal":
            yield f"journal_mode is {journal!r}, expected 'wal': readers would block the writer"
        if synchronous < _SYNCHRONOUS_FULL:
            yield f"synchronous is {synchronous}, expected 2 (FULL): a power cut could lose committed steps"
        if timeout < 1_000:
            yield f"busy_timeout is {timeout} ms, expected 30000: writers would fail instead of waiting"
        if not _begins_immediately(engine):
            yield "transactions do not begin with BEGIN IMMEDIATE: two sessions could lose each other's updates"


def sqlite_engine(url: str | URL, **options: Any) -> Engine:
    """Make an engine for a SQLite file with the settings that durability needs.

    Every transaction begins with BEGIN IMMEDIATE (a reader may say
    ``execution_options(sqlite_deferred=True)``), the journal is WAL, ``synchronous`` is FULL and a busy
    database is waited for 30 s. ``options`` go to ``sqlalchemy.create_engine``.

    Raises:
        ConfigurationError: the URL is of another database, or of a database in memory.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        raise ConfigurationError("url", str(url), "a SQLite URL", "use sqlalchemy.create_engine for other databases")
    require_sqlite_file(parsed)
    engine = create_engine(parsed, **options)
    prepare_sqlite_connections(engine)
    return engine


def require_sqlite_file(url: URL) -> None:
    """Refuse SQLite in memory: another connection or process would see another, empty database."""
    name = url.database or ""
    if name in ("", ":memory:") or "mode=memory" in name or url.query.get("mode") == "memory":
        raise ConfigurationError(
            "url",
            url.render_as_string(),
            "a SQLite database in a file",
            "what is in memory is gone with the process; use for example sqlite:///dbos.sqlite, "
            "or a file in a temporary folder for tests",
        )


def prepare_sqlite_connections(engine: Engine, *, busy_timeout: float = 30.0, begin: bool = True) -> None:
    """Give every new connection of an engine the durable settings; ``busy_timeout`` in seconds.

    The driver's own transaction control is switched off, because it begins late and upgrades read
    locks (SQLAlchemy's documentation of pysqlite, "Serializable isolation").
    """

    @event.listens_for(engine, "connect")
    def set_up(dbapi_connection: Any, connection_record: object) -> None:
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    if begin:

        @event.listens_for(engine, "begin")
        def begin_immediately(connection: Connection) -> None:
            deferred = connection.get_execution_options().get("sqlite_deferred", False)
            connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


def _begins_immediately(engine: Engine) -> bool:
    """Whether a transaction of this engine holds the write lock from its beginning: tried, not read."""
    # Not of the engine's own pool, which may have one connection.
    second = engine.pool.recreate().connect()
    with engine.connect() as first:
        first.exec_driver_sql("SELECT 1")
        cursor = second.cursor()
        try:
            cursor.execute("PRAGMA busy_timeout = 0")
            cursor.execute("BEGIN IMMEDIATE")
        except (sqlite3.OperationalError, DBAPIError):
            return True
        finally:
            cursor.close()
            second.invalidate()
        return False
