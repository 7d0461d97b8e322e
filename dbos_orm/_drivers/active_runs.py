"""The runs that this process executes, and who in it awaits their end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Run
from dbos_orm.errors import OwnershipLost, SerializationError


class ActiveRuns:
    """Knows every run of this process. Whoever awaits a workflow that runs here is woken by its end."""

    def __init__(self) -> None:
        self.dropped: deque[Run] = deque()
        """Runs that ended here for doubts about ownership: perhaps still ours, then to be handed over."""
        self.unreadable: deque[Run] = deque()
        """Runs with a row that this process cannot read: they are to be held, for whoever can."""
        self.ended: Callable[[Run], None] | None = None
        """Called with each run that has ended here, whatever became of it."""
        self._changed = threading.Condition()
        self._runs: dict[str, Run] = {}
        self._waiting: dict[str, set[Callable[[Run], None]]] = {}

    def drop(self, run: Run) -> None:
        """Note that a run has ended here without an outcome; it is handed over if it is still ours."""
        run.end_with(OwnershipLost(run.workflow_id))
        self.dropped.append(run)

    def put_aside(self, run: Run) -> None:
        """Note that a row cannot be read here; ``failure`` of the run says why."""
        run.end_with(OwnershipLost(run.workflow_id))
        self.unreadable.append(run)

    def begin(self, run: Run) -> None:
        """Add a run that this process executes, or is going to."""
        with self._changed:
            self._runs[run.workflow_id] = run

    def end(self, run: Run) -> None:
        """Remove a run, and wake those who await the workflow; whatever became of it is in the database."""
        with self._changed:
            if self._runs.get(run.workflow_id) is not run:
                return
            del self._runs[run.workflow_id]
            waiting = self._waiting.pop(run.workflow_id, ())
            if isinstance(run.failure, SerializationError):
                self.unreadable.append(run)
            elif isinstance(run.stop, OwnershipLost):
                self.dropped.append(run)
            self._changed.notify_all()
        for wake in waiting:
            wake(run)
        if self.ended is not None:
            self.ended(run)

    def get(self, workflow_id: str) -> Run | None:
        """The run of a workflow, if it is executed here."""
        return self._runs.get(workflow_id)

    def all(self) -> list[Run]:
        """Every run, as a copy."""
        with self._changed:
            return list(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)

    def watch(self, workflow_id: str, wake: Callable[[Run], None]) -> bool:
        """Have ``wake`` called with the run at its end here; False if the workflow does not run here yet."""
        with self._changed:
            self._waiting.setdefault(workflow_id, set()).add(wake)
            return workflow_id in self._runs

    def unwatch(self, workflow_id: str, wake: Callable[[Run], None]) -> None:
        """Forget what ``watch`` kept."""
        with self._changed:
            waiting = self._waiting.get(workflow_id)
            if waiting is not None:
                waiting.discard(wake)
                if not waiting:
                    del self._waiting[workflow_id]

    def wait_until_none(self, seconds: float) -> bool:
        """Wait until nothing runs here; False if something still does after ``seconds``."""
        ends = steady_seconds() + seconds
        with self._changed:
            while self._runs:
                left = ends - steady_seconds()
                if left <= 0 or not self._changed.wait(left):
                    return not self._runs
        return True
