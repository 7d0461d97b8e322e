"""What the library must know about a database beyond SQLAlchemy: asked for abilities, never for its name."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CursorResult,
    FromClause,
    Select,
    SQLColumnExpression,
    Table,
    bindparam,
    cast,
    select,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from dbos_orm._clock import Clock
from dbos_orm.config import Config
from dbos_orm.models import Instant

NOW = "now"
"""The name of the parameter that carries the current instant, where the database has no clock."""

StatementBuilder: TypeAlias = "Callable[[Dialect, FromClause], ClauseElement]"


class Fault(enum.Enum):
    """What an error of the database means for whoever tried to write."""

    CONFLICT = "conflict"
    """Another transaction was in the way (lock timeout, deadlock, serialization failure): try again, alone."""
    DISCONNECTED = "disconnected"
    """The connection or the server is gone: the write may or may not have happened; repeat it when it is back."""
    REJECTED = "rejected"
    """The database refuses the statement or a value: trying again changes nothing."""


class Prepared:
    """A statement compiled once, executed with parameters that are already the driver's own values.

    It skips what SQLAlchemy does for every execution (cache key, parameter and result processing),
    which on the hot path costs more than the database. So its parameters and columns must need no
    processing: text, integers, and arrays of them.
    """

    def __init__(self, statement: ClauseElement, dialect: Dialect, *, prefix: str = "") -> None:
        compiled = statement.compile(
            dialect=dialect.driver, schema_translate_map=dialect.schemas, render_schema_translate=bool(dialect.schemas)
        )
        assert isinstance(compiled, SQLCompiler)
        self._text = prefix + str(compiled)
        self._positions: Sequence[str] | None = compiled.positiontup if compiled.positional else None
        self._instants = dialect if NOW in compiled.binds else None
        self._constants = {
            name: bind.value for name, bind in compiled.binds.items() if bind.value is not None and name != NOW
        }

    def execute(self, connection: Connection, parameters: Mapping[str, Any]) -> CursorResult[Any]:
        """Execute with these parameters; rows come back as the driver gives them."""
        if self._instants is not None:
            parameters = {**parameters, NOW: self._instants.instant_parameter(), **self._constants}
        elif self._constants:
            parameters = {**parameters, **self._constants}
        if self._positions is not None:
            return connection.exec_driver_sql(self._text, tuple(parameters[name] for name in self._positions))
        return connection.exec_driver_sql(self._text, parameters)


class RowsStatement:
    """A statement over rows that are given as parameters: one round trip for one row as for many.

    One row has a form of its own, because planning over arrays doubles the cost of a small statement.
    """

    def __init__(
        self,
        dialect: Dialect,
        columns: Mapping[str, TypeEngine[Any]],
        build: StatementBuilder,
        *,
        bounded: bool,
    ) -> None:
        prefix = (dialect.lock_bound or "") if bounded else ""
        many = dialect.many_rows(columns)
        self._columns = tuple(columns)
        self._values = attrgetter(*self._columns)
        self._one = Prepared(build(dialect, dialect.one_row(columns)), dialect, prefix=prefix)
        self._many = None if many is None else Prepared(build(dialect, many), dialect, prefix=prefix)

    def execute(self, connection: Connection, rows: Sequence[object]) -> list[Sequence[Any]]:
        """Execute for all of these objects, whose attributes are the columns, and give what it returned."""
        if self._many is not None and len(rows) > 1:
            arrays = map(list, zip(*map(self._values, rows), strict=True))
            return list(self._many.execute(connection, dict(zip(self._columns, arrays, strict=True))).fetchall())
        return [
            found
            for row in rows
            for found in self._one.execute(connection, dict(zip(self._columns, self._values(row), strict=True)))
        ]


class Dialect(abc.ABC):
    """One kind of database, as the rest of the library sees it."""

    begin: ClassVar[str]
    """The statement that opens a transaction which is going to write."""
    single_writer: ClassVar[bool]
    """Whether one transaction at a time may write in the whole database."""
    locks_rows: ClassVar[bool]
    """Whether other writers can be skipped or waited for row by row."""

    takes_many_rows: ClassVar[bool]
    """Whether one statement can be given many rows as parameters."""

    def __init__(self, engine: Engine, clock: Clock, config: Config) -> None:
        self.driver = engine.dialect
        self.schemas = engine.get_execution_options().get("schema_translate_map")
        self.clock = clock
        self.config = config
        self._statements: dict[object, RowsStatement] = {}

    # -- statements ------------------------------------------------------------------------------

    @abc.abstractmethod
    def insert(self, table: Table) -> Any:
        """An INSERT of ``table`` that has ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""

    @abc.abstractmethod
    def now(self) -> ColumnElement[datetime]:
        """The current instant as SQL: it moves within a transaction, and never goes through a process's clock
        where the database has one."""

    @abc.abstractmethod
    def plus_microseconds(
        self, instant: ColumnElement[Any], microseconds: SQLColumnExpression[Any]
    ) -> ColumnElement[datetime]:
        """An instant, moved by a number of microseconds."""

    @abc.abstractmethod
    def seconds_until(self, instant: SQLColumnExpression[Any]) -> ColumnElement[float | None]:
        """Seconds from now to ``instant``; negative when it has passed."""

    @abc.abstractmethod
    def instant_from_text(self, text: ColumnElement[str]) -> ColumnElement[datetime]:
        """An instant from its text form with offset (``datetime.isoformat``), null from null."""

    @abc.abstractmethod
    def attributes_from_text(self, text: ColumnElement[str]) -> ColumnElement[Any]:
        """The stored form of attributes from their JSON text."""

    @abc.abstractmethod
    def many_rows(self, columns: Mapping[str, TypeEngine[Any]]) -> FromClause | None:
        """A FROM element ``given`` of many rows, a parameter for each column that takes the list of its
        values; None where every row is a statement of its own."""

    def one_row(self, columns: Mapping[str, TypeEngine[Any]]) -> FromClause:
        """A FROM element ``given`` of one row, a parameter for each column."""
        values = (cast(bindparam(key, type_=type_), type_).label(key) for key, type_ in columns.items())
        return select(*values).subquery("given")

    def lock_own(self, statement: Select[Any], table: Table, *, skip_locked: bool) -> Select[Any]:
        """Lock the status rows that fence a write against everything that takes ownership away.

        ``FOR KEY SHARE``: two writes of one owner do not wait for each other; whatever takes ``FOR UPDATE``
        (a cancel, a take-over) waits for this transaction, or this transaction sees what it did.
        """
        return statement.with_for_update(read=True, key_share=True, of=table, skip_locked=skip_locked)

    lock_bound: str | None = None
    """SQL that, put in front of a statement, bounds its waiting for locks; None: ``bound_locks`` must be called."""

    @abc.abstractmethod
    def bound_locks(self, connection: Connection) -> None:
        """Bound how long statements of the open transaction wait for other transactions (a same key, a lock).

        Never set for a whole connection: behind a pooler that would reach other clients.
        """

    def rows_statement(
        self,
        key: object,
        columns: Mapping[str, TypeEngine[Any]],
        build: StatementBuilder,
        *,
        bounded: bool = False,
    ) -> RowsStatement:
        """The statement that ``build`` makes over rows given as parameters, compiled once under ``key``.

        ``bounded`` puts ``lock_bound`` in front of it, where there is one.
        """
        statement = self._statements.get(key)
        if statement is None:
            statement = self._statements.setdefault(key, RowsStatement(self, columns, build, bounded=bounded))
        return statement

    @abc.abstractmethod
    def is_autocommit(self, connection: Connection) -> bool:
        """Whether a connection that has begun is in no transaction all the same."""

    # -- values ----------------------------------------------------------------------------------

    def instant_parameter(self) -> Any:
        """The current instant of the application's clock as a driver's parameter."""
        return self.clock.now()

    def clock_parameter(self) -> BindParameter[datetime]:
        return bindparam(NOW, callable_=self.clock.now, type_=Instant())

    # -- errors ----------------------------------------------------------------------------------

    def fault(self, error: BaseException) -> Fault:
        """What an error raised by the driver or by SQLAlchemy means."""
        if isinstance(error, PoolTimeoutError):
            return Fault.CONFLICT
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return Fault.DISCONNECTED
        if isinstance(error, OSError):
            return Fault.DISCONNECTED
        return self.driver_fault(error)

    @abc.abstractmethod
    def driver_fault(self, error: BaseException) -> Fault:
        """``fault`` for what only this database knows."""

    # -- connections -----------------------------------------------------------------------------

    @abc.abstractmethod
    def prepare_own_engine(self, engine: Engine) -> None:
        """Set up an engine of our own pool."""

    @abc.abstractmethod
    def identity(self, connection: Connection) -> object:
        """Which database a connection of any engine reaches, and which of its tables our statements meet there.

        Two connections have equal identities if a statement of ours does the same on either. It stays the
        same when the server is restarted or fails over. It is asked in the connection's own transaction.
        """

    remedy: ClassVar[str]
    """What to do about what ``probe`` found."""

    @abc.abstractmethod
    def probe(self, engine: Engine) -> Iterable[str]:
        """What is missing in the user's engine for the guarantees to hold: one sentence each."""
