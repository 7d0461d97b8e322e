"""PostgreSQL 13 and later, with psycopg2, psycopg 3 or asyncpg."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from sqlalchemy import (
    JSON,
    Boolean,
    ColumnElement,
    DateTime,
    Double,
    FromClause,
    Interval,
    Select,
    SQLColumnExpression,
    Table,
    Text,
    bindparam,
    cast,
    column,
    extract,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, Insert, insert
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.types import TypeEngine

from dbos_orm._clock import Clock
from dbos_orm._dialects._base import Dialect, Fault
from dbos_orm._dialects._listening import can_hear
from dbos_orm._dialects._prepared import LOST_STATEMENT, DirectConnection, PoolerNotice, PreparingConnection
from dbos_orm.config import Config, seconds
from dbos_orm.models import WorkflowStatus

_CONFLICTS: Final = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available
}
_DISCONNECTIONS: Final = {
    "25006",  # read_only_sql_transaction: a primary that became a standby
    "53300",  # too_many_connections
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
    "57P05",  # idle_session_timeout
    "25P03",  # idle_in_transaction_session_timeout
}

_QUERY_CANCELED: Final = "57014"

_LASTING_REFUSALS: Final = ("authentication failed", "no pg_hba.conf entry", "does not exist")
"""Refusals to connect that stay. Any other passes, in whatever language: a server that starts, stops or is full."""

_IDENTITY: Final = text(
    "SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), "
    "CAST(to_regclass(:table) AS oid) FROM pg_control_system()"
)


class PostgreSQLDialect(Dialect):
    """Rows are locked one by one, statements over many rows take JSON, the server has the clock."""

    begin: ClassVar[str] = "BEGIN"
    single_writer: ClassVar[bool] = False
    remedy: ClassVar[str] = (
        "give an engine that begins transactions on the primary, for example with target_session_attrs=read-write"
    )
    locks_rows: ClassVar[bool] = True
    takes_many_rows: ClassVar[bool] = True

    def __init__(self, engine: Engine, clock: Clock, config: Config) -> None:
        super().__init__(engine, clock, config)
        self._pooler_notice = PoolerNotice()
        self._lease_milliseconds = max(1, round(seconds(config.lease) * 1000))
        self._lock_milliseconds = max(1, round(seconds(config.lock_timeout) * 1000))

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def now(self) -> ColumnElement[datetime]:
        if self.clock.controls_database:
            return self.clock_parameter()
        return func.clock_timestamp(type_=DateTime(timezone=True))

    def plus_microseconds(
        self, instant: ColumnElement[Any], microseconds: SQLColumnExpression[Any]
    ) -> ColumnElement[datetime]:
        return instant + microseconds * literal_column("interval '1 microsecond'", Interval)

    def seconds_until(self, instant: SQLColumnExpression[Any]) -> ColumnElement[float | None]:
        return cast(extract("epoch", instant - self.now()), Double)

    def instant_from_text(self, text: ColumnElement[str]) -> ColumnElement[datetime]:
        return cast(text, DateTime(timezone=True))

    def attributes_from_text(self, text: ColumnElement[str]) -> ColumnElement[Any]:
        return cast(text, JSONB)

    def many_rows(
        self, columns: Mapping[str, TypeEngine[Any]], parameter: str, *, looked_up: bool = True
    ) -> FromClause:
        # One text for all rows: a driver that makes an array of each column spends more time on that than the server
        # does on the whole statement.
        rows = func.json_to_recordset(cast(bindparam(parameter, type_=Text()), JSON))
        named = [column(key, type_) for key, type_ in columns.items()]
        table = rows.table_valued(*named, name="given").render_derived(with_types=True)
        if not looked_up:
            return select(table).subquery("given")
        # Always true, and the planner takes a range of something unknown for one row in 200. It expects 100 rows of
        # the function and would read the whole status table for them; this way it looks each of them up.
        few = func.length(table.c[named[0].key]).between(literal_column("0"), literal_column("1000000000"))
        return select(table).where(few).subquery("given")

    def lock_bound(self) -> ColumnElement[bool]:
        # In the statement itself, because SET in front of it would be a round trip, or a transaction, more.
        return literal_column(f"set_config('lock_timeout', '{self._lock_milliseconds}ms', true) IS NOT NULL", Boolean)

    def idle_bound(self) -> ColumnElement[bool]:
        if self.is_guest:
            return literal_column("true", Boolean)
        bound = f"'{self._lease_milliseconds}ms', true"
        return literal_column(f"set_config('idle_in_transaction_session_timeout', {bound}) IS NOT NULL", Boolean)

    def relaxed_commit(self) -> ColumnElement[bool]:
        if self.is_guest:
            return literal_column("true", Boolean)
        return literal_column("set_config('synchronous_commit', 'off', true) IS NOT NULL", Boolean)

    def is_one_of(self, value: ColumnElement[Any], found: Select[Any]) -> ColumnElement[bool]:
        # The planner takes an array for ten values. Of a subquery whose limit is a parameter it expects a tenth of the
        # table, and would read the whole status table to join them.
        return value == func.any(func.array(found.scalar_subquery()))

    def json_rows(self, columns: Sequence[SQLColumnExpression[Any]]) -> ColumnElement[str]:
        return cast(func.json_agg(func.json_build_array(*columns)), Text)

    def bound_locks(self, connection: Connection) -> None:
        if not self.is_guest:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {self._lock_milliseconds}")

    def is_autocommit(self, connection: Connection) -> bool:
        return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))

    def limit_statements(self, connection: Connection, timeout: timedelta) -> None:
        # Zero would lift the limit. In a transaction that goes on after the step it would stay.
        milliseconds = max(1, round(timeout.total_seconds() * 1000))
        if not self.is_guest:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")

    def is_time_limit(self, error: BaseException) -> bool:
        return _cause_and_state(error)[1] == _QUERY_CANCELED

    def driver_fault(self, error: BaseException) -> Fault:
        cause, state = _cause_and_state(error)
        if state in _CONFLICTS:
            return Fault.CONFLICT
        if state in LOST_STATEMENT and self.driver.driver == "asyncpg":
            # Nothing was done.
            self._pooler_notice.is_given = True
            return Fault.CONFLICT
        if state in _DISCONNECTIONS or (state or "").startswith("08"):
            return Fault.DISCONNECTED
        # libpq gives no state with a refusal to connect, only the server's text.
        if state is None and getattr(error, "statement", None) is None and "FATAL" in str(cause):
            return Fault.REJECTED if any(text in str(cause) for text in _LASTING_REFUSALS) else Fault.DISCONNECTED
        # Without a state it is the driver that speaks: of a connection that broke or could not be made.
        if state is None and isinstance(error, (OperationalError, InterfaceError)):
            return Fault.DISCONNECTED
        if state is None and isinstance(error, DBAPIError) and "connection" in str(cause).lower():
            return Fault.DISCONNECTED
        return Fault.REJECTED

    @property
    def can_listen(self) -> bool:
        return can_hear(self.driver.driver, is_async=self.driver.is_async)

    @property
    def begins_by_driver(self) -> bool:
        # asyncpg sends a statement in two parts, and between them a pooler may change the server process. A transaction
        # it begins in one part, and until its end the pooler stays.
        return self._pooler_notice.is_given and self.driver.driver == "asyncpg"

    def direct_connection(self, engine: Engine) -> DirectConnection:
        if engine.dialect.driver != "psycopg2":
            return DirectConnection(engine)
        return PreparingConnection(engine, self._pooler_notice)

    def prepare_own_engine(self, engine: Engine) -> None:
        return None

    def identity(self, connection: Connection) -> object:
        # Not when the server was started or where it listens: both change while it stays the same database. The table
        # too, because another search_path finds other tables.
        preparer = connection.dialect.identifier_preparer
        schema = (self.schemas or {}).get(None)
        table = ".".join(preparer.quote(name) for name in (schema, WorkflowStatus.__tablename__) if name is not None)
        return ("postgresql", *connection.execute(_IDENTITY, {"table": table}).one())

    def probe(self, engine: Engine) -> Iterable[str]:
        with engine.connect() as connection:
            if connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
                yield "the server is a read-only standby: connect to the primary"
            # Tried, not read: what ends with its transaction is gone after the first statement.
            connection.execute(text("SELECT set_config('dbos_orm.probe', 'begun', true)"))
            if connection.execute(text("SELECT current_setting('dbos_orm.probe', true)")).scalar_one() != "begun":
                yield "it is in AUTOCOMMIT: a transaction's rows and its checkpoint would be several commits"


def _cause_and_state(error: BaseException) -> tuple[BaseException, str | None]:
    """The driver's own error, and its SQLSTATE if it has one."""
    cause = getattr(error, "orig", None) or error
    return cause, getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
