"""The dispatcher: one thread that claims from all queues, woken by whatever makes that worth while."""

from __future__ import annotations

import heapq
import threading
from functools import partial
from math import inf
from typing import Final

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Launch, Run
from dbos_orm._drivers.binding import Binding
from dbos_orm._queue_settings import QueueSettings
from dbos_orm._services.dispatch import Dispatch
from dbos_orm._services.intake import Intake
from dbos_orm._services.service import Service
from dbos_orm._store.delays import promote_due
from dbos_orm._store.overview import Overview, observe
from dbos_orm._store.queues import fill_in

_EXPECTING_SECONDS: Final = (0.002, 0.01, 0.05, 0.25)
"""When to look again for what is being committed; whoever commits later is found by the tick."""
_LINGER_SECONDS: Final = 0.003
_TELLING_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 3600.0
_DUE_AT_ONCE: Final = 1000


class DispatcherService(Service):
    """Claims when it hears of work, when a run has ended and more waits, when a delay is over, and after each tick."""

    def __init__(self, binding: Binding, launch: Launch, intake: Intake, dispatch: Dispatch) -> None:
        super().__init__(f"dbos-{binding.environment.application}-dispatcher")
        self._binding = binding
        self._launch = launch
        self._intake = intake
        self._dispatch = dispatch
        self._lock = threading.Lock()
        self._expected: list[tuple[float, str, str]] = []
        self._looks_everywhere = False
        self._due_at = inf
        self._has_others = False
        self._missing: list[QueueSettings] = []
        self._told_at = -inf

    # -- what wakes it ---------------------------------------------------------------------------

    def look_for(self, queue: str, name: str, is_expected: bool) -> bool:
        """Look now for workflows of this name in this queue; False if this process does not run such.

        ``is_expected``: their commit is under way, so look a few times more in the next moments. Without a name,
        anything may have got room: look everywhere, and have others do so too.
        """
        if not name:
            self.look_everywhere()
            return False
        if not self._dispatch.hear(queue, name):
            return False
        if is_expected:
            now = steady_seconds()
            with self._lock:
                for seconds in _EXPECTING_SECONDS:
                    heapq.heappush(self._expected, (now + seconds, queue, name))
        self.wake()
        return True

    def look_everywhere(self) -> None:
        """Look now into every queue."""
        self._looks_everywhere = True
        self.wake()

    def see(self, overview: Overview, asked_at: float) -> None:
        """Take what the tick has found out, as it was when it asked."""
        self._has_others = bool(overview.others)
        rows = {queue.name for queue in overview.queues}
        declared = (
            self._binding.environment.registry.queue(queue) for queue, _ in overview.waiting if queue not in rows
        )
        self._missing = [settings for settings in declared if settings is not None]
        self._due_at = inf if overview.due_in is None else asked_at + max(0.0, overview.due_in)
        if self._dispatch.see(overview, asked_at) or self._due_at < inf:
            self.wake()

    def has_ended(self, run: Run) -> None:
        """Take note of the end of a run in this process: its slot is free."""
        queue = self._intake.slots.release(run)
        if queue is not None:
            self._dispatch.released(queue)
        if self._dispatch.is_hungry:
            self.wake()

    def has_room(self) -> None:
        """Take note of a thread that has become free."""
        if self._dispatch.is_hungry:
            self.wake()

    # -- what it does ----------------------------------------------------------------------------

    def run_once(self) -> float:
        """Claim what may be claimed now."""
        self._linger()
        self._hear_expected()
        if self._looks_everywhere:
            self._observe()
        if self._missing:
            self._fill_in()
        if self._due_at <= steady_seconds():
            self._promote()
        claimed, again = self._dispatch.claim()
        self._intake.hold_unreadable()
        is_hungry = self._dispatch.is_hungry
        if is_hungry:
            self._tell_others()
            if claimed and self._binding.free > 0:
                return 0.0
        return max(0.0, min(again, self._due_at - steady_seconds(), self._until_expected(), _LONGEST_SECONDS))

    def stop(self) -> None:
        super().stop()
        self._dispatch.close()

    def _linger(self) -> None:
        """Where all slots were taken, wait for a few more to become free: a claim for each costs as much as its run."""
        if self._dispatch.is_hungry and 0 < self._binding.free < self._binding.capacity // 4:
            self._is_stopped.wait(_LINGER_SECONDS)

    def _hear_expected(self) -> None:
        now = steady_seconds()
        with self._lock:
            due = []
            while self._expected and self._expected[0][0] <= now:
                due.append(heapq.heappop(self._expected))
        for _, queue, name in due:
            self._dispatch.hear(queue, name)

    def _until_expected(self) -> float:
        with self._lock:
            return self._expected[0][0] - steady_seconds() if self._expected else inf

    def _fill_in(self) -> None:
        """Give queues their rows that code has declared since the launch, and in which something waits."""
        settings, self._missing = self._missing, []
        application = self._binding.environment.application
        verb = partial(fill_in, dialect=self._binding.dialect, application=application, settings=settings)
        self._binding.gateway.change(verb)

    def _observe(self) -> None:
        self._looks_everywhere = False
        application, asked_at = self._binding.environment.application, steady_seconds()
        verb = partial(
            observe, dialect=self._binding.dialect, application=application, executor_id=self._launch.executor_id
        )
        self.see(self._dispatch.line.once(verb), asked_at)

    def _promote(self) -> None:
        """Have what is due wait in its queue, for whoever serves it."""
        application = self._binding.environment.application
        verb = partial(promote_due, dialect=self._binding.dialect, application=application, limit=_DUE_AT_ONCE)
        promoted = self._dispatch.line.once(verb)
        # When the next one is due the tick finds out; a full portion has more behind it.
        self._due_at = steady_seconds() if len(promoted) == _DUE_AT_ONCE else inf
        for queue, name in dict.fromkeys(promoted):
            if not self._dispatch.hear(queue, name):
                self._binding.hints.tell_others(queue, name, is_new=True)

    def _tell_others(self) -> None:
        now = steady_seconds()
        if not self._has_others or now - self._told_at < _TELLING_SECONDS:
            return
        self._told_at = now
        for queue, name in self._dispatch.left_behind:
            self._binding.hints.tell_others(queue, name)
