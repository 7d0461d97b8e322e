"""Noticing that somebody else has committed to a SQLite file, without a statement that it would have to wait for."""

from __future__ import annotations

import abc
import ctypes
import os
import sqlite3
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import Engine

from dbos_orm._dialects._listening import own_connection
from dbos_orm._dialects._waking import WakeableWait

_MODIFIED: Final = 2
"""IN_MODIFY of inotify(7)."""
_BUFFER_BYTES: Final = 4096
_ACTIVE_SECONDS: Final = 0.02
_IDLE_SECONDS: Final = 0.1
_STILL_ACTIVE_SECONDS: Final = 2.0


class FileWatch(abc.ABC):
    """Waits until a SQLite file is written to, by anybody. It belongs to one thread; only ``wake`` is for others."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def version(self) -> int:
        """A number that changes with every commit of any connection, once it can be seen."""
        # It reads shared memory: 5 us, no lock that anybody waits for. https://sqlite.org/pragma.html#pragma_data_version
        cursor = self._connection.execute("PRAGMA data_version")
        found: int = cursor.fetchone()[0]
        cursor.close()
        return found

    @abc.abstractmethod
    def wait(self, seconds: float) -> bool:
        """Return when something is being written, after ``wake``, or after some seconds; True if it was a write.

        What is being written can be seen a moment later. Where nobody tells of writes it returns in
        between, never with True.
        """

    @abc.abstractmethod
    def wake(self) -> None:
        """Have ``wait`` return: the one under way, or the next."""

    def close(self) -> None:
        """Give back what it holds."""
        self._connection.close()


class _NotifiedWatch(FileWatch):
    """Is told by the kernel (Linux)."""

    def __init__(self, connection: Any, notified: int) -> None:
        super().__init__(connection)
        self._notified = notified
        self._wait = WakeableWait(notified)

    def wait(self, seconds: float) -> bool:
        if not self._wait.wait(seconds):
            return False
        # All of it, or more than one wait would be over for one commit.
        with suppress(BlockingIOError):
            while os.read(self._notified, _BUFFER_BYTES):
                pass
        return True

    def wake(self) -> None:
        self._wait.wake()

    def close(self) -> None:
        self._wait.close()
        os.close(self._notified)
        super().close()


class _PollingWatch(FileWatch):
    """Returns again and again: less often when the file has been quiet for a while."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._awoken = threading.Event()
        self._last = 0
        self._quiet = 0.0

    def version(self) -> int:
        found = super().version()
        if found != self._last:
            self._last, self._quiet = found, 0.0
        return found

    def wait(self, seconds: float) -> bool:
        pause = min(seconds, _ACTIVE_SECONDS if self._quiet < _STILL_ACTIVE_SECONDS else _IDLE_SECONDS)
        self._quiet += pause
        self._awoken.wait(pause)
        self._awoken.clear()
        return False

    def wake(self) -> None:
        self._awoken.set()


def open_watch(engine: Engine) -> FileWatch:
    """Watch the file of an engine's database, on a connection of its own."""
    connection = _connection(engine)
    try:
        # The first question opens the log; it stays as long as this connection is there.
        connection.execute("PRAGMA data_version").close()
        notified = _notified(Path(f"{_file(connection)}-wal"))
    except BaseException:
        connection.close()
        raise
    return _PollingWatch(connection) if notified is None else _NotifiedWatch(connection, notified)


def _connection(engine: Engine) -> Any:
    if not engine.dialect.is_async:
        return own_connection(engine)
    # Not over the driver, whose every question is passed to another thread and back. It is the same library, though:
    # another one would know nothing of the locks that this process holds on the file, and undo them.
    file = engine.url.database or ""
    return sqlite3.connect(file, isolation_level=None, uri=file.startswith("file:"))


def _file(connection: Any) -> str:
    cursor = connection.execute("PRAGMA database_list")
    name: str = next(row[2] for row in cursor.fetchall() if row[1] == "main")
    cursor.close()
    return name


def _notified(file: Path) -> int | None:
    """A descriptor that becomes readable when the file is written to; None where the system has no such thing."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "inotify_init1"):
        return None
    notified: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if notified < 0:
        return None
    if library.inotify_add_watch(notified, os.fsencode(file), _MODIFIED) < 0:
        os.close(notified)
        return None
    return notified
