"""This process's way to its database: the library's own pool, and patience when the database is away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final, TypeVar

from sqlalchemy.engine import Connection, Engine

from dbos_orm._context import Run, logger
from dbos_orm._dialects import Dialect, Fault, driver_transaction
from dbos_orm._drivers.writer_turn import WriterTurn
from dbos_orm.config import Config, seconds
from dbos_orm.errors import DatabaseUnavailableError

T = TypeVar("T")

_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 1.0
_SILENT_SECONDS: Final = 1.0


class Gateway:
    """Calls store verbs on connections of the library's own pool.

    Every method blocks its caller until the database has answered; ``blocking`` and the two ways to wait are
    what the asyncio form of this class does differently.
    """

    def __init__(self, engine: Engine, dialect: Dialect, config: Config) -> None:
        self.engine = engine
        self.dialect = dialect
        self.writer = WriterTurn()
        self._patience = seconds(config.launch_timeout)

    has_service_loop = False
    """Whether connections belong to an event loop of their own, on which ``start`` runs code."""

    # -- how to wait -----------------------------------------------------------------------------

    def blocking(self, call: Callable[[], T]) -> T:
        """Run code that uses connections, where that is allowed, and wait for it."""
        return call()

    def start(self, call: Callable[[], object]) -> None:
        """Run code that uses connections without waiting for it, where there is a service loop."""
        raise NotImplementedError("a synchronous gateway has no service loop")

    def pause(self, duration: float) -> None:
        """Wait some seconds, from within ``blocking``."""
        time.sleep(duration)

    def wait_for_turn(self, turn: Future[None]) -> None:
        """Wait for a turn at writing, from within ``blocking``."""
        turn.result()

    # -- what to do ------------------------------------------------------------------------------

    def read(self, verb: Callable[[Connection], T], run: Run | None = None) -> T:
        """Call a verb that only reads; repeated while the database is away."""
        return self.blocking(lambda: self._patiently(lambda: self._reading(verb), run))

    def read_once(self, verb: Callable[[Connection], T]) -> T:
        """``read`` without patience: an error is the caller's to deal with."""
        return self.blocking(lambda: self._reading(verb))

    def change(self, verb: Callable[[Connection], T], run: Run | None = None) -> T:
        """Call an idempotent verb in a transaction; repeated after conflicts and while the database is away."""
        return self.blocking(lambda: self._patiently(lambda: self.transaction(verb), run))

    def attempt(self, call: Callable[[], T], run: Run | None) -> T:
        """Run code that deals with conflicts itself; repeated while the database is away."""
        return self.blocking(lambda: self._patiently(call, run))

    def transaction(self, verb: Callable[[Connection], T]) -> T:
        """Call a verb in a transaction, once; from within ``blocking``."""
        with self.writing(), self.engine.connect() as connection, begun(connection, self.dialect):
            return verb(connection)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Take a turn at writing, where there is one writer; from within ``blocking``."""
        if not self.dialect.single_writer:
            yield
            return
        turn = self.writer.request()
        try:
            self.wait_for_turn(turn)
        except BaseException:
            self.writer.withdraw(turn)
            raise
        try:
            yield
        finally:
            self.writer.release()

    def new_patience(self) -> Patience:
        """The patience of one operation, from its first error on."""
        return Patience(self.dialect, self._patience, self.engine.url.render_as_string())

    def close(self) -> None:
        """Close the pool; a connection that is in use is closed when it comes back."""
        self.blocking(self.engine.dispose)

    def forget(self) -> None:
        """Drop the pool in a forked child, without touching the parent's connections."""
        self.engine.dispose(close=False)
        self.writer = WriterTurn()

    def _reading(self, verb: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            if not self.dialect.begins_by_driver:
                return verb(connection)
            with begun(connection, self.dialect):
                return verb(connection)

    def _patiently(self, call: Callable[[], T], run: Run | None) -> T:
        patience: Patience | None = None
        while True:
            try:
                return call()
            except Exception as error:
                patience = patience or self.new_patience()
                self.pause(patience.pause_after(error, run))


class Patience:
    """How long to wait for a database that is away: as long as the lease holds, or a fixed time without a run."""

    def __init__(self, dialect: Dialect, limit: float, url: str) -> None:
        self._dialect = dialect
        self._limit = limit
        self._url = url
        self._began = dialect.clock.monotonic()
        self._pause = _FIRST_PAUSE_SECONDS
        self._is_reported = False

    def pause_after(self, error: Exception, run: Run | None) -> float:
        """Seconds to wait before trying again after ``error``; raises what ``require`` raises."""
        self.require(error, run)
        return self.next_pause()

    def require(self, error: Exception, run: Run | None) -> None:
        """Return if it makes sense to try again after ``error``.

        Raises:
            Exception: ``error`` itself, where trying again changes nothing.
            DatabaseUnavailableError: nobody's lease depends on it, and the time is up.
            OwnershipLost: the run's lease has ended, or whatever else has ended the run meanwhile.
        """
        if self._dialect.fault(error) is Fault.REJECTED:
            raise error
        waited = self._dialect.clock.monotonic() - self._began
        if run is not None and not run.launch.is_valid:
            run.stop_here(DatabaseUnavailableError(self._url, waited, error))
        if run is None and waited > self._limit:
            raise DatabaseUnavailableError(self._url, waited, error) from error
        if not self._is_reported and waited > _SILENT_SECONDS:
            self._is_reported = True
            logger.warning("database %s does not answer, still trying: %s", self._url, error)

    def next_pause(self) -> float:
        """Seconds until the next try: twice as long each time, with jitter."""
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        return pause * (0.5 + random.random() / 2)


@contextmanager
def begun(connection: Connection, dialect: Dialect) -> Iterator[None]:
    """A transaction on one of our own connections, which are in autocommit: begun and ended in SQL."""
    if dialect.begins_by_driver:
        with _begun_by_driver(connection):
            yield
        return
    connection.exec_driver_sql(dialect.begin)
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


@contextmanager
def _begun_by_driver(connection: Connection) -> Iterator[None]:
    try:
        with driver_transaction(connection.dialect, connection.connection.dbapi_connection):
            yield
    except BaseException:
        connection.invalidate()
        raise


def roll_back(connection: Connection) -> None:
    """End an open transaction; a connection that cannot is thrown away."""
    try:
        connection.exec_driver_sql("ROLLBACK")
    except Exception:
        connection.invalidate()
