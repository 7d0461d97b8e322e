"""What the library must know about a database beyond SQLAlchemy: asked for abilities, never for its name."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
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
from sqlalchemy.types import TypeEngine

from dbos_orm._clock import Clock
from dbos_orm._dialects._prepared import NOW, DirectConnection, Prepared
from dbos_orm.config import Config
from dbos_orm.models import Instant


class Fault(enum.Enum):
    """What an error of the database means for whoever tried to write."""

    CONFLICT = "conflict"
    """Another transaction was in the way (lock timeout, deadlock, serialization failure): try again, alone."""
    DISCONNECTED = "disconnected"
    """The connection or the server is gone: the write may or may not have happened; repeat it when it is back."""
    REJECTED = "rejected"
    """The database refuses the statement or a value: trying again changes nothing."""


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
        self._prepared: dict[Hashable, Prepared] = {}

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

    def many_rows(
        self, columns: Mapping[str, TypeEngine[Any]], parameter: str, *, looked_up: bool = True
    ) -> FromClause:
        """A FROM element ``given`` of the rows that one parameter holds: a JSON array of objects, as text.

        The first column is a text. ``looked_up``: it is the key by which each row is looked up in a table.

        Raises:
            NotImplementedError: the database does not take many rows (``takes_many_rows``).
        """
        raise NotImplementedError(parameter)

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

    is_guest = False
    """Whether the transactions are the user's: then nothing is set that would outlive the library's statements."""

    @abc.abstractmethod
    def lock_bound(self) -> ColumnElement[bool]:
        """A condition that is true, and does for the rest of its transaction what ``bound_locks`` does."""

    @abc.abstractmethod
    def idle_bound(self) -> ColumnElement[bool]:
        """A condition that is true, and has the server end its transaction when its process says nothing for a lease.

        For locks that others come by: a process that was stopped in the middle would hold them for as long.
        """

    @abc.abstractmethod
    def relaxed_commit(self) -> ColumnElement[bool]:
        """A condition that is true, and has its transaction commit without waiting for the disk where that is known.

        For what may be lost with the server: nobody was told of it.
        """

    @abc.abstractmethod
    def is_one_of(self, value: ColumnElement[Any], found: Select[Any]) -> ColumnElement[bool]:
        """Whether ``value`` is among the few that a SELECT finds; each of them is looked up, whatever is expected."""

    @abc.abstractmethod
    def json_rows(self, columns: Sequence[SQLColumnExpression[Any]]) -> ColumnElement[str]:
        """All rows as one JSON text: an array of arrays, null if there is none."""

    @abc.abstractmethod
    def bound_locks(self, connection: Connection) -> None:
        """Bound how long statements of the open transaction wait for other transactions (a same key, a lock).

        Never set for a whole connection: behind a pooler that would reach other clients.
        """

    @abc.abstractmethod
    def limit_statements(self, connection: Connection, timeout: timedelta) -> None:
        """Bound how long every statement of the open transaction may take, where the database can do that."""

    def prepared(self, key: Hashable, build: Callable[[], ClauseElement]) -> Prepared:
        """The statement that ``build`` makes, compiled once under ``key``."""
        found = self._prepared.get(key)
        if found is None:
            made = Prepared(build(), self.driver, self.schemas, self.instant_parameter)
            found = self._prepared.setdefault(key, made)
        return found

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

    def is_time_limit(self, error: BaseException) -> bool:
        """Whether a statement took longer than ``limit_statements`` allows."""
        return False

    @abc.abstractmethod
    def driver_fault(self, error: BaseException) -> Fault:
        """``fault`` for what only this database knows."""

    # -- connections -----------------------------------------------------------------------------

    @property
    def can_listen(self) -> bool:
        """Whether processes can tell one another something through the database, and this driver hears it."""
        return False

    @property
    def can_watch(self) -> bool:
        """Whether a process can notice that another one has committed something, without asking for it."""
        return False

    @property
    def begins_by_driver(self) -> bool:
        """Whether every statement needs a transaction that the driver begins: autocommit and SQL are not enough."""
        return False

    def direct_connection(self, engine: Engine) -> DirectConnection:
        """A connection of our own pool that executes through its driver's cursor."""
        return DirectConnection(engine)

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
