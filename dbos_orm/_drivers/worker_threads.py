"""The threads that background workflows run on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from dbos_orm._context import logger

_IDLE_SECONDS: Final = 10.0


def start_thread(call: Callable[[], None], name: str) -> None:
    """Run a call in a thread of its own: a daemon, so that a process may end while it runs."""
    threading.Thread(target=call, name=name, daemon=True).start()


class _Worker:
    """A thread of the pool. ``wake`` is held while it has nothing to do."""

    __slots__ = ("is_called", "wake")

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.is_called = True
        """Whether it was woken, or made, for a job that it has not taken yet."""


class WorkerThreads:
    """Runs jobs on at most ``limit`` busy threads; the others wait in line.

    A job that only waits for something else lends its slot (``lent``): another thread may then take the
    next job, so that workflows which wait for workflows behind them in line cannot block for ever.
    Threads are daemons: a process may end while jobs run, and somebody else continues them.

    One thread is woken at a time, and it wakes the next when it has taken its job: threads that are woken
    together would take the interpreter lock from one another, and from who has more jobs to submit.
    """

    def __init__(self, limit: int, name: str) -> None:
        self.freed: Callable[[], None] | None = None
        """Called when a slot has become free that no job in line takes."""
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._jobs: deque[Callable[[], None]] = deque()
        self._parts: deque[Callable[[], None]] = deque()
        self._busy = 0
        self._sleeping: list[_Worker] = []
        self._is_calling = False
        self._threads = 0
        self._is_closed = False
        self._local = threading.local()

    def submit(self, job: Callable[[], None], *, is_part: bool = False) -> None:
        """Run a job as soon as there is a slot.

        A part of a job that has begun comes before the jobs that have not: else each slot that is lent for the
        wait for a part would go to another job, which submits parts of its own.
        """
        with self._lock:
            (self._parts if is_part else self._jobs).append(job)
            self._call()

    def withdraw_part(self, job: Callable[[], None]) -> None:
        """Forget a part that somebody else has done."""
        with self._lock, suppress(ValueError):
            self._parts.remove(job)

    @property
    def free(self) -> int:
        """How many more jobs would start at once."""
        with self._lock:
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
        with self._lock:
            self._busy -= 1
            self._call()
        self._tell_freed()
        try:
            yield
        finally:
            # Back at once, even beyond the limit: the job holds what others may be waiting for.
            with self._lock:
                self._busy += 1

    def close(self) -> None:
        """Drop the jobs that wait and let idle threads end; running ones end by themselves."""
        with self._lock:
            self._is_closed = True
            self._jobs.clear()
            self._parts.clear()
            for worker in self._sleeping:
                worker.wake.release()
            self._sleeping.clear()

    def _call(self) -> None:
        """Wake or make a thread if there is a job and a slot for it; called with the lock held."""
        if self._is_calling or not self._in_line or self._busy >= self._limit:
            return
        if self._sleeping:
            # The last one to fall asleep is the first to find its memory in the caches.
            worker = self._sleeping.pop()
            worker.is_called = True
            worker.wake.release()
        else:
            self._threads += 1
            start_thread(partial(self._work, _Worker()), f"{self._name}-{self._threads}")
        self._is_calling = True

    def _next_job(self, worker: _Worker) -> Callable[[], None] | None:
        """The next job for a thread, which waits for it; None when it is to end."""
        while True:
            with self._lock:
                if worker.is_called:
                    worker.is_called = self._is_calling = False
                if self._in_line and self._busy < self._limit:
                    self._busy += 1
                    job = (self._parts or self._jobs).popleft()
                    self._call()
                    return job
                if self._is_closed:
                    return None
                worker.wake.acquire(blocking=False)
                self._sleeping.append(worker)
            if not worker.wake.acquire(timeout=_IDLE_SECONDS) and self._is_superfluous(worker):
                return None

    def _is_superfluous(self, worker: _Worker) -> bool:
        """Whether a thread that has slept for long may end: nobody has called it in the last moment."""
        with self._lock:
            if worker not in self._sleeping:
                return False
            self._sleeping.remove(worker)
            return True

    def _work(self, worker: _Worker) -> None:
        self._local.is_worker = True
        while (job := self._next_job(worker)) is not None:
            try:
                job()
            except BaseException:
                logger.exception("a background workflow ended with an unexpected error")
            with self._lock:
                self._busy -= 1
            self._tell_freed()

    def _tell_freed(self) -> None:
        if self.freed is not None and not self._in_line:
            self.freed()
