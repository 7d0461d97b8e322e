"""The threads that background workflows run on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from dbos_orm._context import logger

_IDLE_SECONDS: Final = 10.0


def start_thread(call: Callable[[], None], name: str) -> None:
    """Run a call in a thread of its own: a daemon, so that a process may end while it runs."""
    threading.Thread(target=call, name=name, daemon=True).start()


class WorkerThreads:
    """Runs jobs on at most ``limit`` busy threads; the others wait in line.

    A job that only waits for something else lends its slot (``lent``): another thread may then take the
    next job, so that workflows which wait for workflows behind them in line cannot block for ever.
    Threads are daemons: a process may end while jobs run, and somebody else continues them.
    """

    def __init__(self, limit: int, name: str) -> None:
        self.freed: Callable[[], None] | None = None
        """Called when a slot has become free that no job in line takes."""
        self._limit = limit
        self._name = name
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._parts: deque[Callable[[], None]] = deque()
        self._busy = 0
        self._idle = 0
        self._threads = 0
        self._is_closed = False
        self._local = threading.local()

    def submit(self, job: Callable[[], None], *, is_part: bool = False) -> None:
        """Run a job as soon as there is a slot.

        A part of a job that has begun comes before the jobs that have not: else each slot that is lent for the
        wait for a part would go to another job, which submits parts of its own.
        """
        with self._changed:
            (self._parts if is_part else self._jobs).append(job)
            self._dispatch()

    def withdraw_part(self, job: Callable[[], None]) -> None:
        """Forget a part that somebody else has done."""
        with self._changed, suppress(ValueError):
            self._parts.remove(job)

    @property
    def free(self) -> int:
        """How many more jobs would start at once."""
        with self._changed:
            return max(0, self._limit - self._busy - self._in_line)

    @property
    def _in_line(self) -> int:
        return len(self._jobs) + len(self._parts)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give up the calling job's slot while it only waits; nothing happens on a thread of somebody else's."""
        if not getattr(self._local, "is_worker", False):
            yield
            return
        with self._changed:
            self._busy -= 1
            self._dispatch()
        self._tell_freed()
        try:
            yield
        finally:
            # Back at once, even beyond the limit: the job holds what others may be waiting for.
            with self._changed:
                self._busy += 1

    def close(self) -> None:
        """Drop the jobs that wait and let idle threads end; running ones end by themselves."""
        with self._changed:
            self._is_closed = True
            self._jobs.clear()
            self._parts.clear()
            self._changed.notify_all()

    def _dispatch(self) -> None:
        """Wake or make a thread if there is a job and a slot for it; called with the lock held."""
        if not self._in_line or self._busy >= self._limit:
            return
        # A thread that was woken counts as idle until it runs: a second job must not rely on it too.
        if self._idle >= self._in_line:
            self._changed.notify()
            return
        self._threads += 1
        start_thread(self._work, f"{self._name}-{self._threads}")

    def _next_job(self) -> Callable[[], None] | None:
        with self._changed:
            ends = time.monotonic() + _IDLE_SECONDS
            while not (self._in_line and self._busy < self._limit):
                if self._is_closed or time.monotonic() > ends:
                    return None
                self._idle += 1
                self._changed.wait(_IDLE_SECONDS)
                self._idle -= 1
            self._busy += 1
            return (self._parts or self._jobs).popleft()

    def _work(self) -> None:
        self._local.is_worker = True
        while (job := self._next_job()) is not None:
            try:
                job()
            except BaseException:
                logger.exception("a background workflow ended with an unexpected error")
            with self._changed:
                self._busy -= 1
            self._tell_freed()

    def _tell_freed(self) -> None:
        if self.freed is not None and not self._in_line:
            self.freed()
