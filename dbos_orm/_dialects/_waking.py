"""Waiting for a file descriptor in one thread, and being woken by others."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress
from typing import Final

_BUFFER_BYTES: Final = 4096


class WakeableWait:
    """Waits until something can be read from ``descriptor``. It belongs to one thread; only ``wake`` is for others."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waker, self._awoken = socket.socketpair()
        for end in (self._waker, self._awoken):
            end.setblocking(False)
        # Not select(), which knows no file descriptors beyond 1023.
        self._selector = selectors.DefaultSelector()
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._selector.register(self._awoken, selectors.EVENT_READ)

    def wait(self, seconds: float) -> bool:
        """Return when there is something to read, after ``wake``, or after some seconds; True if it was the first."""
        ready = {key.fd for key, _ in self._selector.select(seconds)}
        with suppress(BlockingIOError):
            self._awoken.recv(_BUFFER_BYTES)
        return self._descriptor in ready

    def wake(self) -> None:
        """Have ``wait`` return: the one under way, or the next. Never blocks, and does nothing behind ``close``."""
        with suppress(OSError):
            self._waker.send(b"w")

    def close(self) -> None:
        """Give back what it holds; the descriptor is the caller's."""
        self._selector.close()
        self._waker.close()
        self._awoken.close()
