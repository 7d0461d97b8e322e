"""Which databases an application's sessions reach: its own, and others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import sessionmaker

from dbos_orm._context import OpenTransaction
from dbos_orm._dialects import Dialect, Fault, dialect_of
from dbos_orm._drivers.gateway import Gateway
from dbos_orm._drivers.sessions import Database, SessionSource, source_of
from dbos_orm._drivers.writer_turn import WriterTurn
from dbos_orm._flows.effects import Maker, Unreachable
from dbos_orm._store import second_database
from dbos_orm.config import Config
from dbos_orm.errors import ConfigurationError, DatabaseUnavailableError, DBOSError

T = TypeVar("T")

_READS: Final = {"sqlite_deferred": True}


class Databases:
    """Tells databases apart by asking them, and gives the sources of sessions on them.

    An engine is asked once. ``may_create``: the one table that a second database needs is created where it is
    missing. ``own_options`` go to every session on the application's own database. Methods that connect are called
    from within ``Gateway.blocking``, or in a greenlet of the loop that the engine belongs to, and then behind
    ``learn_own``.
    """

    def __init__(
        self,
        gateway: Gateway,
        config: Config,
        main: SessionSource,
        own_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._gateway = gateway
        self._config = config
        self._dialect = gateway.dialect
        self.main = main
        self._own_options = own_options or {}
        self.may_create = False
        self._own: object = None
        self._identities: WeakKeyDictionary[Engine, object] = WeakKeyDictionary()
        self._others: dict[object, Database] = {}
        self._located: dict[Maker, SessionSource] = {}
        self._ready: WeakSet[Engine] = WeakSet([main.engine])

    # -- whose database it is --------------------------------------------------------------------

    @property
    def knows_own(self) -> bool:
        """Whether the application's own database was asked."""
        return self._own is not None

    def learn_own(self, connection: Connection) -> None:
        """Ask the application's own database: a verb for ``Gateway.read`` or ``read_async``."""
        self._own = self._dialect.identity(connection)

    def is_own(self, connection: Connection) -> bool:
        """Whether a connection of any engine reaches the application's own database, and its tables there.

        The first time for an engine it is asked, in the connection's own transaction; behind ``learn_own``.
        """
        if connection.engine is self.main.engine:
            return True
        if connection.dialect.name != self._dialect.driver.name:
            return False
        assert self.knows_own, "the application's own database is asked first"
        return self._identity(connection, self._dialect) == self._own

    def _identity(self, connection: Connection, dialect: Dialect) -> object:
        found = self._identities.get(connection.engine)
        if found is None:
            found = self._identities.setdefault(connection.engine, dialect.identity(connection))
        return found

    def opened(self, transaction: OpenTransaction) -> bool:
        """Whether a transaction is one of this application's."""
        return source_of(transaction).database in (self.main.database, *self._others.values())

    # -- sources of sessions ---------------------------------------------------------------------

    def known(self, maker: Maker | None) -> SessionSource | None:
        """The source of a maker's sessions (None: those of the binding) if it is ready; nothing is asked."""
        if maker is None:
            return self.main
        engine = _engine_behind(maker)
        if engine is None or engine not in self._ready:
            return None
        source = self._located.get(maker)
        if source is None and engine is self.main.engine:
            source = self._located[maker] = self._own_source(maker, engine, self._dialect)
        return source if source is not None and source.engine is engine else None

    def locate(self, maker: Maker) -> SessionSource:
        """The source of a maker's sessions, for telling which database it is; takes no turn at writing.

        Raises:
            ConfigurationError: the maker has no engine, or one that cannot be used.
        """
        engine = self._engine_of(maker)
        source = self._located.get(maker)
        if source is None or source.engine is not engine:
            source = self._located[maker] = self._explored(maker, engine)
        return source

    def reach(self, maker: Maker) -> SessionSource | Unreachable:
        """The source of a maker's sessions, when its engine was probed and its database has what it needs."""
        dialect: Dialect | None = None
        try:
            source = self.locate(maker)
            dialect = source.dialect
            if source.engine not in self._ready:
                self._prepare(source)
                self._ready.add(source.engine)
            return source
        except DatabaseUnavailableError as error:
            return Unreachable(error, Fault.DISCONNECTED)
        except DBOSError as error:
            return Unreachable(error, Fault.REJECTED)
        except Exception as error:
            engine = self._engine_of(maker)
            fault = (dialect or dialect_of(engine, self._dialect.clock, self._config)).fault(error)
            return Unreachable(DatabaseUnavailableError(engine.url.render_as_string(), 0, error), fault)

    def ask(self, source: SessionSource, verb: Callable[[Connection], T]) -> T:
        """Call a store verb in a transaction of its own on the database of a source, once."""
        with self._writing(source), source.engine.begin() as connection:
            return verb(connection)

    def _explored(self, maker: Maker, engine: Engine) -> SessionSource:
        dialect = dialect_of(engine, self._dialect.clock, self._config)
        if not self.knows_own:
            self._gateway.read(self.learn_own)
        with engine.connect() as connection:
            reading = connection.execution_options(**_READS)
            if engine is self.main.engine or self.is_own(reading):
                dialect.schemas = self._dialect.schemas
                return self._own_source(maker, engine, dialect)
            identity = self._identity(reading, dialect)
        writer = WriterTurn() if dialect.single_writer else None
        database = self._others.setdefault(identity, Database(is_own=False, writer=writer))
        return SessionSource(maker, engine, dialect, database)

    def _own_source(self, maker: Maker, engine: Engine, dialect: Dialect) -> SessionSource:
        return SessionSource(maker, engine, dialect, self.main.database, options=self._own_options)

    def _prepare(self, source: SessionSource) -> None:
        with self._writing(source):
            missing = list(source.dialect.probe(source.engine))
            if missing:
                raise ConfigurationError(
                    "sessionmaker",
                    source.url,
                    "an engine with settings that keep the guarantees; " + "; ".join(missing),
                    source.dialect.remedy,
                )
            if not source.is_own:
                with source.engine.begin() as connection:
                    second_database.require_transaction_output(connection, create=self.may_create)

    @contextmanager
    def _writing(self, source: SessionSource) -> Iterator[None]:
        turn = source.request_turn()
        if turn is None:
            yield
            return
        try:
            if source.engine.dialect.is_async:
                self._gateway.wait_for_turn(turn)
            else:
                turn.result()
        except BaseException:
            source.withdraw_turn(turn)
            raise
        try:
            yield
        finally:
            source.release_turn()

    def _engine_of(self, maker: Maker) -> Engine:
        # Of the maker, not of the application: plain functions beside coroutines have sessions of their own kind.
        engine, is_async = _engine_behind(maker), isinstance(maker, async_sessionmaker)
        kind = "async_sessionmaker" if is_async else "sessionmaker"
        if engine is None:
            raise ConfigurationError(
                "sessionmaker",
                maker,
                f"a maker that is bound to an {'AsyncEngine' if is_async else 'Engine'} when it is used",
                f"make it with {kind}(engine), or call its configure(bind=engine) before",
            )
        if engine.dialect.is_async is not is_async:
            raise ConfigurationError(
                "sessionmaker",
                engine.url.render_as_string(),
                f"an engine with {'an asynchronous' if is_async else 'a synchronous'} driver",
                f"give the {kind} an engine made with {'create_async_engine' if is_async else 'create_engine'}",
            )
        return engine


def _engine_behind(maker: Maker) -> Engine | None:
    """The engine that the maker is configured with at this moment."""
    bind = maker.kw.get("bind")
    if isinstance(bind, AsyncEngine) and isinstance(maker, async_sessionmaker):
        return bind.sync_engine
    return bind if isinstance(bind, Engine) and isinstance(maker, sessionmaker) else None
