"""How many runs of each queue this process has under way."""

from __future__ import annotations

import threading
from collections import Counter

from dbos_orm._context import Run


class Slots:
    """Counts what was claimed from queues, from the claim until the run has ended here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[tuple[str, str], tuple[str, str | None]] = {}
        self._taken: Counter[tuple[str, str | None]] = Counter()
        self._in_queue: Counter[str] = Counter()

    def take(self, run: Run, queue: str, partition_key: str | None) -> None:
        """Count a run for its queue and its partition."""
        with self._lock:
            self._count(run, queue, partition_key)

    def take_one_of(self, limit: int | None, run: Run, queue: str) -> bool:
        """Count a run for its queue unless ``limit`` runs of that are under way here."""
        with self._lock:
            if limit is not None and self._in_queue[queue] >= limit:
                return False
            self._count(run, queue, None)
            return True

    def _count(self, run: Run, queue: str, partition_key: str | None) -> None:
        self._places[run.workflow_id, run.owner_token] = (queue, partition_key)
        self._taken[queue, partition_key] += 1
        self._in_queue[queue] += 1

    def release(self, run: Run) -> str | None:
        """Forget a run that has ended; give its queue, if it came from one."""
        with self._lock:
            place = self._places.pop((run.workflow_id, run.owner_token), None)
            if place is None:
                return None
            self._taken[place] -= 1
            self._in_queue[place[0]] -= 1
            if not self._taken[place]:
                del self._taken[place]
            return place[0]

    def taken(self, queue: str) -> int:
        """How many runs of a queue are under way here."""
        return self._in_queue[queue]

    def taken_of(self, queue: str, partition_key: str | None) -> int:
        """How many of one partition are."""
        return self._taken[queue, partition_key]
