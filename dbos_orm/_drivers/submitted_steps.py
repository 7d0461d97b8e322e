"""Steps that a workflow has submitted, and that run beside it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError

from dbos_orm._context import Run
from dbos_orm._drivers.time_limits import outcome_of
from dbos_orm._flows.effects import Outcome
from dbos_orm._outcomes import Raised, unwrap


class SubmittedStep:
    """One step on its way. Whoever claims it first works on it: a worker thread, or who waits for its outcome.

    So no step waits for ever for a thread that itself waits for the step. It has the context of the call that
    submitted it, and is among the run's ``opened`` until it has its outcome.
    """

    def __init__(self, run: Run, perform: Callable[[], Outcome]) -> None:
        self.run = run
        self.outcome: Outcome | None = None
        self._perform = perform
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._is_claimed = False
        self._waiting: set[Callable[[], None]] = set()
        run.opened[self] = None

    @property
    def is_done(self) -> bool:
        """Whether there is an outcome."""
        return self.outcome is not None

    def work(self) -> None:
        """Run the step here, unless somebody else does or did."""
        if self._claim():
            self._end_with(self._context.run(outcome_of, lambda: unwrap(self._perform())))

    def withdraw(self) -> None:
        """Have nobody begin the step any more: its run ends without it."""
        if self._claim():
            self._end_with(Raised(self.run.stop or CancelledError("its workflow ended before the step began")))

    def wait(self) -> None:
        """Wait for the outcome, whatever becomes of the run."""
        is_done = threading.Event()
        self.watch(is_done.set)
        is_done.wait()

    def watch(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when there is an outcome, perhaps at once."""
        with self._lock:
            self._waiting.add(wake)
            is_done = self.outcome is not None
        if is_done:
            wake()

    def unwatch(self, wake: Callable[[], None]) -> None:
        """Forget what ``watch`` kept."""
        with self._lock:
            self._waiting.discard(wake)

    def _claim(self) -> bool:
        with self._lock:
            is_first = not self._is_claimed
            self._is_claimed = True
            return is_first

    def _end_with(self, outcome: Outcome) -> None:
        self.run.opened.pop(self, None)
        with self._lock:
            self.outcome = outcome
            waiting = tuple(self._waiting)
        for wake in waiting:
            wake()
