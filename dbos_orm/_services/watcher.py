"""Notices what other processes commit, where the database is a file that can be watched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from typing import Final

from dbos_orm._clock import steady_seconds
from dbos_orm._dialects import FileWatch, open_watch
from dbos_orm._drivers.binding import Binding
from dbos_orm._drivers.writer_turn import WriterTurn
from dbos_orm._services.service import Service

_SETTLING_SECONDS: Final = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
"""When to ask for a commit after something was written: it can be seen when the disk has it."""
_SPACING_SECONDS: Final = (0.004, 0.02)
"""Between two looks: the shortest, and the longest after looks behind which there was nothing to do."""
_OWN_SECONDS: Final = (0.01, 0.1)
"""Before a look at what may be an own commit: at first, and where such follow one another."""
_QUIET_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 0.002
_IDLE_SECONDS: Final = 0.25
"""How often a file is asked that was not written to, as far as the kernel has told."""


class Lookout:
    """Decides when to look: at once after a commit of somebody else's, later after what may be this process's own.

    The file does not tell who has committed. If this process had no turn at writing since the last question, it was
    another one. A look that found work made this process write, and so the next may follow soon; where others only do
    their own work there are 20 ms between two looks.
    """

    def __init__(self, writer: WriterTurn, version: int) -> None:
        self._writer = writer
        self._version = version
        self._turns, self._was_writing = writer.taken()
        self._turns_at_look = self._turns
        self._last = -inf
        self._spacing, self._patience = _SPACING_SECONDS[0], _OWN_SECONDS[0]
        self._is_sure = False
        self.due = inf

    def see(self, version: int, now: float) -> bool:
        """Take note of the file's present version; True if there was a commit since the last time."""
        turns, is_writing = self._writer.taken()
        is_own = self._was_writing or turns != self._turns
        is_changed = version != self._version
        self._version, self._turns, self._was_writing = version, turns, is_writing
        if is_changed and is_own:
            self.due = min(self.due, now + self._patience)
        elif is_changed:
            self._is_sure = True
            if turns != self._turns_at_look:
                self._spacing = _SPACING_SECONDS[0]
            self.due = min(self.due, max(now, self._last + self._spacing))
        return is_changed

    def is_due(self, now: float) -> bool:
        """Whether to look now; if so, it counts as done."""
        if now < self.due:
            return False
        is_quiet = now - self._last > _QUIET_SECONDS
        self._spacing = _SPACING_SECONDS[0] if is_quiet else min(2 * self._spacing, _SPACING_SECONDS[1])
        self._patience = _OWN_SECONDS[0] if is_quiet or self._is_sure else min(2 * self._patience, _OWN_SECONDS[1])
        self._turns_at_look, self._is_sure = self._turns, False
        self._last, self.due = now, inf
        return True


class WatcherService(Service):
    """Has everything looked at when another process has committed something. It sends no statement while all is quiet.

    The kernel tells it of writes to the log, where it can; elsewhere it asks for the file's version every 20 ms, and
    every 100 ms after some quiet seconds.
    """

    def __init__(self, binding: Binding) -> None:
        super().__init__(f"dbos-{binding.environment.application}-watcher")
        self._binding = binding
        self._watch: FileWatch | None = None

    def run_once(self) -> float:
        """Watch until this is stopped or the file can not be read."""
        watch = self._watch = open_watch(self._binding.engine)
        try:
            self._binding.hints.is_listening = True
            self._follow(watch, Lookout(self._binding.gateway.writer, watch.version()))
            return 0.0
        finally:
            self._binding.hints.is_listening = False
            self._watch = None
            with suppress(Exception):
                watch.close()

    def wake(self) -> None:
        super().wake()
        watch = self._watch
        if watch is not None:
            watch.wake()

    def stop(self) -> None:
        self._is_stopped.set()
        self.wake()
        super().stop()

    def _follow(self, watch: FileWatch, lookout: Lookout) -> None:
        settling: Iterator[float] = iter(())
        asked = steady_seconds()
        while not self.is_stopped():
            pause = min(next(settling, _IDLE_SECONDS), max(0.0, lookout.due - steady_seconds()))
            if watch.wait(pause):
                settling = iter(_SETTLING_SECONDS)
                # Somebody writes all the time: not a question for each of their commits.
                time.sleep(max(0.0, asked + _BUSY_SECONDS - steady_seconds()))
            asked = steady_seconds()
            if lookout.see(watch.version(), asked):
                settling = iter(_SETTLING_SECONDS)
            if lookout.is_due(asked) and self._binding.hints.look_everywhere is not None:
                self._binding.hints.look_everywhere()
