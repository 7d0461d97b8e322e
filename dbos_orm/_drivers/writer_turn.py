"""Turns at writing, for databases that have one writer."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future


class WriterTurn:
    """A fair lock whose waiters are futures, so that threads and event loops can wait in one line.

    SQLite's own busy handler is not fair: with many writers one may wait for seconds. Within a process
    everyone who is about to write takes a turn here first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._count = 0
        self._waiting: deque[Future[None]] = deque()

    def taken(self) -> tuple[int, bool]:
        """How many turns there were, and whether one is under way."""
        with self._lock:
            return self._count, self._is_taken

    def request(self) -> Future[None]:
        """A future that is done when it is the caller's turn; then ``release`` must follow."""
        turn: Future[None] = Future()
        with self._lock:
            if self._is_taken:
                self._waiting.append(turn)
                return turn
            self._is_taken = True
            self._count += 1
        turn.set_running_or_notify_cancel()
        turn.set_result(None)
        return turn

    def withdraw(self, turn: Future[None]) -> None:
        """Give up a turn that was requested, whether it has come or not."""
        if not turn.cancel():
            self.release()

    def release(self) -> None:
        """Pass the turn on to who waits longest."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_taken = False
                    return
                following = self._waiting.popleft()
                self._count += 1
            if following.set_running_or_notify_cancel():
                following.set_result(None)
                return
