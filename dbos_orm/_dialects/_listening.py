"""Hearing the notices of a channel (LISTEN) on a connection of its own, with each driver that can."""

from __future__ import annotations

import abc
import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from sqlalchemy.engine import Engine
from sqlalchemy.util import await_only

from dbos_orm._dialects._waking import WakeableWait

_CLOSING_SECONDS: Final = 2.0


class Listener(abc.ABC):
    """Gives ``heard`` the text of each notice on ``channel``, from the moment it is made.

    It belongs to one thread, which makes it, waits and closes it; only ``wake`` is for others. With an asynchronous
    driver it is made and closed in a greenlet of the loop that gets the connection, and ``heard`` is called
    on that loop: it must not block.
    """

    @abc.abstractmethod
    def wait(self, seconds: float) -> None:
        """Return when there was something to hear, after ``wake``, or after some seconds.

        Raises:
            Exception: the connection is lost.
        """

    @abc.abstractmethod
    def wake(self) -> None:
        """Have ``wait`` return: the one under way, or the next."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection; never fails."""


class _SocketListener(Listener):
    """Waits for a driver's socket, and can be woken."""

    def __init__(self, raw: Any, channel: str, heard: Callable[[str], None]) -> None:
        self._raw = raw
        self._heard = heard
        cursor = raw.cursor()
        cursor.execute(f'LISTEN "{channel}"')
        cursor.close()
        self._wait = WakeableWait(raw.fileno())

    @abc.abstractmethod
    def _notices(self) -> Iterator[str]:
        """What has arrived."""

    def wait(self, seconds: float) -> None:
        if not self._hear():
            self._wait.wait(seconds)
            self._hear()

    def _hear(self) -> bool:
        has_heard = False
        for text in self._notices():
            self._heard(text)
            has_heard = True
        return has_heard

    def wake(self) -> None:
        self._wait.wake()

    def close(self) -> None:
        self._wait.close()
        with suppress(Exception):
            self._raw.close()


class _Psycopg2Listener(_SocketListener):
    def _notices(self) -> Iterator[str]:
        self._raw.poll()
        while self._raw.notifies:
            yield self._raw.notifies.pop(0).payload


class _PsycopgListener(_SocketListener):
    def _notices(self) -> Iterator[str]:
        return _libpq_notices(self._raw.pgconn)


class _LoopListener(Listener):
    """Is told by the event loop; the waiting thread only learns that something happened."""

    def __init__(self, raw: Any, channel: str, heard: Callable[[str], None]) -> None:
        self._raw = raw
        self._connection = raw.driver_connection
        self._heard = heard
        self._happened = threading.Event()
        self._lost: Exception | None = None
        self._listen(channel)

    @abc.abstractmethod
    def _listen(self, channel: str) -> None:
        """Begin to be told."""

    def wait(self, seconds: float) -> None:
        self._happened.wait(seconds)
        self._happened.clear()
        if self._lost is not None:
            raise self._lost

    def wake(self) -> None:
        self._happened.set()

    def _hear(self, text: str) -> None:
        self._heard(text)
        self._happened.set()

    def _lose(self, error: Exception) -> None:
        self._lost = error
        self._happened.set()


class _AsyncpgListener(_LoopListener):
    def _listen(self, channel: str) -> None:
        self._connection.add_termination_listener(self._terminated)
        await_only(self._connection.add_listener(channel, self._noticed))

    def _noticed(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        self._hear(str(payload))

    def _terminated(self, connection: Any) -> None:
        self._lose(ConnectionError("the connection was closed"))

    def close(self) -> None:
        with suppress(Exception):
            await_only(self._connection.close(timeout=_CLOSING_SECONDS))


class _AsyncPsycopgListener(_LoopListener):
    def _listen(self, channel: str) -> None:
        cursor = self._raw.cursor()
        cursor.execute(f'LISTEN "{channel}"')
        cursor.close()
        self._loop = asyncio.get_running_loop()
        self._socket = self._connection.fileno()
        self._loop.add_reader(self._socket, self._take)

    def _take(self) -> None:
        try:
            for text in _libpq_notices(self._connection.pgconn):
                self._hear(text)
        except Exception as error:
            self._loop.remove_reader(self._socket)
            self._lose(error)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        with suppress(Exception):
            self._raw.close()


def _libpq_notices(connection: Any) -> Iterator[str]:
    connection.consume_input()
    while (notice := connection.notifies()) is not None:
        yield notice.extra.decode()


_LISTENERS: Final[dict[tuple[str, bool], Callable[[Any, str, Callable[[str], None]], Listener]]] = {
    ("psycopg2", False): _Psycopg2Listener,
    ("psycopg", False): _PsycopgListener,
    ("psycopg", True): _AsyncPsycopgListener,
    ("asyncpg", True): _AsyncpgListener,
}


def can_hear(driver: str, *, is_async: bool) -> bool:
    """Whether ``open_listener`` knows this driver."""
    return (driver, is_async) in _LISTENERS


def open_listener(engine: Engine, channel: str, heard: Callable[[str], None]) -> Listener:
    """Listen on a connection of its own, which is opened as ``engine`` opens its own, and is in autocommit."""
    raw = own_connection(engine)
    try:
        return _LISTENERS[engine.dialect.driver, engine.dialect.is_async](raw, channel, heard)
    except BaseException:
        with suppress(Exception):
            raw.close()
        raise


def own_connection(engine: Engine) -> Any:
    """A driver's connection that is no pool's, in autocommit, opened as ``engine`` opens its own."""
    fairy = engine.pool.recreate().connect()
    # No pool is to take it back, nor to end a transaction on it in a forked child.
    fairy.detach()
    raw: Any = fairy.dbapi_connection
    engine.dialect.set_isolation_level(raw, "AUTOCOMMIT")
    return raw
