"""Statements that are compiled once, and the shortest way to execute them."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import Dialect as Driver
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from dbos_orm._clock import steady_seconds

NOW: Final = "now"
"""The name of the parameter that carries the current instant, where the database has no clock."""

Parameters: TypeAlias = "Mapping[str, Any] | Sequence[Any]"

_USES_BEFORE_PREPARING: Final = 3
_SLOW_SECONDS: Final = 0.02
"""Far beyond what a statement of ours takes, unless it waits for a lock or the disk."""
_PLAN_SECONDS: Final = 1.0
"""How long the plan of a statement that was slow is kept at least."""
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")
LOST_STATEMENT: Final = {
    "26000",  # invalid_sql_statement_name: this server process has not prepared it
    "42P05",  # duplicate_prepared_statement
}

_logger = logging.getLogger("dbos_orm.sql")


@contextmanager
def driver_transaction(driver: Driver, raw: Any) -> Iterator[None]:
    """A transaction on a driver's connection that is in autocommit, begun and ended in the driver's own way."""
    driver.set_isolation_level(raw, "READ COMMITTED")
    try:
        yield
        raw.commit()
    except BaseException:
        raw.rollback()
        raise
    finally:
        driver.set_isolation_level(raw, "AUTOCOMMIT")


class DirectConnection:
    """A connection of our own pool, in autocommit, that executes through its driver's cursor.

    What SQLAlchemy does around a statement (events, a context, a result) costs more than the driver itself.
    Errors are still SQLAlchemy's, with what it knows about broken connections. What is sent is
    logged at DEBUG as ``dbos_orm.sql``.
    """

    __slots__ = ("_connection", "_driver", "_raw")

    def __init__(self, engine: Engine) -> None:
        self._connection = engine.connect()
        self._driver = engine.dialect
        self._raw: Any = self._connection.connection.dbapi_connection

    def run(self, statement: Prepared, parameters: Parameters) -> list[Sequence[Any]]:
        """Execute a statement that is likely to come again."""
        return self.execute(statement.text, parameters)

    def execute(self, text: str, parameters: Parameters | None = None) -> list[Sequence[Any]]:
        """Execute one statement, and give the rows that it returns."""
        _logger.debug("%s", text)
        cursor = self._raw.cursor()
        try:
            if parameters is None:
                cursor.execute(text)
            else:
                cursor.execute(text, parameters)
            return [] if cursor.description is None else list(cursor.fetchall())
        except self._driver.loaded_dbapi.Error as error:
            raise self._told(text, parameters, cursor, error) from error
        finally:
            cursor.close()

    def transaction(self) -> AbstractContextManager[None]:
        """A transaction that the driver begins and ends; after an error the connection is to be dropped."""
        return driver_transaction(self._driver, self._raw)

    def close(self) -> None:
        """Give the connection back to its pool."""
        self._connection.close()

    def drop(self) -> None:
        """Throw the connection away: what it is in the middle of is not known."""
        self._connection.invalidate()
        self._connection.close()

    def _told(self, text: str, parameters: Any, cursor: Any, error: Any) -> BaseException:
        """The error as SQLAlchemy would have raised it."""
        told: BaseException = DBAPIError.instance(
            text,
            parameters,
            error,
            self._driver.loaded_dbapi.Error,
            hide_parameters=self._connection.engine.hide_parameters,
            connection_invalidated=self._driver.is_disconnect(error, self._raw, cursor),
            dialect=self._driver,
        )
        return told


class PoolerNotice:
    """What all connections of an engine know about prepared statements: whether a pooler has lost one."""

    def __init__(self) -> None:
        self.is_given = False


class PreparingConnection(DirectConnection):
    """A ``DirectConnection`` of a driver that sends all statements as text, for the server to plan them each time.

    Planning takes two thirds of the server's time for a statement of ours, so what comes again is prepared, as
    other drivers do by themselves. Behind a pooler that gives each transaction another server
    process the prepared statement is missing there. That is an error before anything was done: the
    statement is sent as text, and from then on nothing is prepared.

    The server keeps the plan of a prepared statement until the table is analyzed. A plan that was made for a table
    of a few rows reads all of it, for a minute or longer after it has grown: what is slow is prepared anew.
    """

    __slots__ = ("_notice", "_prepared_as", "_uses")

    def __init__(self, engine: Engine, notice: PoolerNotice) -> None:
        super().__init__(engine)
        self._notice = notice
        self._uses: dict[Prepared, int] = {}
        self._prepared_as: dict[Prepared, _PreparedAs] = {}

    def run(self, statement: Prepared, parameters: Parameters) -> list[Sequence[Any]]:
        if self._notice.is_given:
            return self.execute(statement.text, parameters)
        try:
            known = self._known(statement) or self._prepared(statement)
            if known is not None:
                return self._execute_prepared(known, parameters)
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) not in LOST_STATEMENT:
                raise
            self._notice.is_given = True
        return self.execute(statement.text, parameters)

    def _execute_prepared(self, known: _PreparedAs, parameters: Parameters) -> list[Sequence[Any]]:
        began = steady_seconds()
        rows = self.execute(known.call, parameters)
        known.is_doubtful = steady_seconds() - began > _SLOW_SECONDS and began - known.since > _PLAN_SECONDS
        return rows

    def _known(self, statement: Prepared) -> _PreparedAs | None:
        known = self._prepared_as.get(statement)
        if known is None or not known.is_doubtful:
            return known
        # Here and not behind what was slow: an error must mean that nothing was done.
        del self._prepared_as[statement]
        self.execute(f"DEALLOCATE {known.name}")
        return None

    def _prepared(self, statement: Prepared) -> _PreparedAs | None:
        """What a statement is prepared as now; None for one that may never come again."""
        uses = self._uses[statement] = self._uses.get(statement, 0) + 1
        if uses < _USES_BEFORE_PREPARING:
            return None
        # Nobody else behind the same pooler may have given the name to another statement.
        name = f"dbos_{secrets.token_hex(8)}"
        names = list(dict.fromkeys(_PARAMETER.findall(statement.text)))
        text = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement.text)
        self.execute(f"PREPARE {name} AS {text.replace('%%', '%')}")
        call = f"EXECUTE {name} ({', '.join(f'%({each})s' for each in names)})"
        known = self._prepared_as[statement] = _PreparedAs(name, call, steady_seconds())
        return known


@dataclass(slots=True)
class _PreparedAs:
    """The name of a prepared statement, the text that calls it, and since when there is a plan."""

    name: str
    call: str
    since: float
    is_doubtful: bool = False


AnyConnection: TypeAlias = Connection | DirectConnection


class Prepared:
    """A statement compiled once, executed with parameters that are already the driver's own values.

    It skips what SQLAlchemy does for every execution (cache key, parameter and result processing),
    which on the hot path costs more than the database. So its parameters and columns must need no
    processing: text and integers. ``instant`` gives the present to a statement that asks for ``NOW``.
    """

    def __init__(
        self,
        statement: ClauseElement,
        driver: Driver,
        schemas: Mapping[str | None, str] | None,
        instant: Callable[[], Any],
    ) -> None:
        compiled = statement.compile(
            dialect=driver, schema_translate_map=schemas, render_schema_translate=bool(schemas)
        )
        assert isinstance(compiled, SQLCompiler)
        self.text = str(compiled)
        self._positions: Sequence[str] | None = compiled.positiontup if compiled.positional else None
        self._instant = instant if NOW in compiled.binds else None
        self._constants = {
            name: bind.value for name, bind in compiled.binds.items() if bind.value is not None and name != NOW
        }

    def execute(self, connection: AnyConnection, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute with these parameters, and give the rows as the driver gives them."""
        given = self._given(parameters)
        if isinstance(connection, DirectConnection):
            return connection.run(self, given)
        return connection.exec_driver_sql(self.text, given).fetchall()

    def execute_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Execute once for each of the rows, and give how many the database says it has written."""
        return connection.exec_driver_sql(self.text, [self._given(row) for row in rows]).rowcount

    def _given(self, parameters: Mapping[str, Any]) -> Any:
        if self._instant is not None:
            parameters = {**parameters, NOW: self._instant(), **self._constants}
        elif self._constants:
            parameters = {**parameters, **self._constants}
        if self._positions is None:
            return parameters
        return tuple([parameters[name] for name in self._positions])
