"""The grouped floor: the same writes, but what 64 threads write at the same time shares a commit.

The thread that finds nobody writing leads: it writes everything that is pending with multi-row statements, on the
one connection there is, in one round trip. The others wait, and one of them leads the next batch.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Any

from benchmarks.contenders.floor import connect, prepare
from benchmarks.tasks import Task
from benchmarks.threads import share_out
from benchmarks.worker import Stopwatch, main

# As many as this library runs background workflows on.
THREADS = 64


class Kind(Enum):
    """What is written of a workflow."""

    START = auto()
    FINISH = auto()
    STEP = auto()


STATEMENTS = {
    Kind.START: "INSERT INTO floor_status SELECT v.id, 'PENDING', 'me', '[]', NULL FROM (VALUES {}) AS v (id, step)",
    Kind.FINISH: (
        "UPDATE floor_status AS s SET status = 'SUCCESS', output = '1' FROM (VALUES {}) AS v (id, step) "
        "WHERE s.workflow_id = v.id AND s.owner = 'me'"
    ),
    # The last one: its rows are those that are returned.
    Kind.STEP: (
        "INSERT INTO floor_step SELECT s.workflow_id, v.step, s.owner, 'step', '1' "
        "FROM (VALUES {}) AS v (id, step) JOIN floor_status AS s ON s.workflow_id = v.id "
        "WHERE s.owner = 'me' AND s.status = 'PENDING' FOR KEY SHARE OF s ON CONFLICT DO NOTHING RETURNING step_id"
    ),
}


@dataclass(eq=False)
class Entry:
    """One write. ``turn`` is released when it is written, or when its thread is to lead the next batch."""

    kind: Kind
    workflow_id: str
    step: int = 0
    is_written: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.turn.acquire()


class Committer:
    """Writes entries of many threads on one connection."""

    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor()
        self._lock = threading.Lock()
        self._pending: list[Entry] = []
        self._is_writing = False

    def write(self, entry: Entry) -> None:
        """Return when the entry is committed."""
        with self._lock:
            self._pending.append(entry)
            is_leader = not self._is_writing
            self._is_writing = True
        if not is_leader:
            entry.turn.acquire()
        if not entry.is_written:
            self._lead()

    def _lead(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, []
        self._execute(batch)
        with self._lock:
            successor = self._pending[0] if self._pending else None
            self._is_writing = successor is not None
        for entry in batch:
            entry.is_written = True
            entry.turn.release()
        if successor is not None:
            successor.turn.release()

    def _execute(self, batch: list[Entry]) -> None:
        statements, parameters = [], []
        for kind, statement in STATEMENTS.items():
            rows = [(entry.workflow_id, entry.step) for entry in batch if entry.kind is kind]
            if rows:
                statements.append(statement.format(", ".join(["%s"] * len(rows))))
                parameters += rows
        # Several statements in one string are one transaction.
        self._cursor.execute("; ".join(statements), parameters)
        steps = sum(entry.kind is Kind.STEP for entry in batch)
        assert not steps or len(self._cursor.fetchall()) == steps


def work(task: Task, stopwatch: Stopwatch) -> None:
    """Do the task with threads that share a connection."""
    prepare(task.url)
    connection = connect(task.url)
    committer = Committer(connection)
    runners = [partial(_run_workflow, committer, task.steps)] * THREADS
    share_out(task.warm_up, runners)
    with stopwatch:
        share_out(task.workflows, runners)
    connection.close()


def _run_workflow(committer: Committer, steps: int, workflow_id: str) -> None:
    committer.write(Entry(Kind.START, workflow_id))
    for step in range(1, steps + 1):
        committer.write(Entry(Kind.STEP, workflow_id, step))
    committer.write(Entry(Kind.FINISH, workflow_id))


if __name__ == "__main__":
    main(work)
