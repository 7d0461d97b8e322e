"""A contender as seen from here: a program that is given a task and answers what it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tasks import Task

ROOT = Path(__file__).parents[1]
# Seconds for one run.
PATIENCE = 600.0


class RunFailedError(Exception):
    """A contender ended before it had done its task; the end of what it wrote is in the message."""


@dataclass(frozen=True)
class Outcome:
    """What a run took: seconds, seconds of processor time in the client, and by how much the counter rose."""

    seconds: float
    cpu: float
    counted: int


def _always(task: Task) -> bool:
    return True


@dataclass(frozen=True)
class Contender:
    """The module ``key`` of ``benchmarks.contenders``, run by ``interpreter`` in a new process for each task.

    ``enters`` tells which tasks it does; for the others it has no figures.
    """

    name: str
    key: str
    interpreter: Path = Path(sys.executable)
    enters: Callable[[Task], bool] = _always

    def run(self, task: Task, count: Callable[[], int]) -> Outcome:
        """Have the task done once; ``count`` is read directly before the work and directly after.

        Raises:
            RunFailedError: the program ended early, or was ended because it took ten minutes.
        """
        with tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen(
                [self.interpreter, "-m", f"benchmarks.contenders.{self.key}", task.to_json()],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
            timer = threading.Timer(PATIENCE, process.kill)
            timer.start()
            try:
                with process:
                    outcome = _answer(process, count)
            finally:
                timer.cancel()
            if outcome is None:
                complaints.seek(0)
                raise RunFailedError(f"{self.name} failed at {task}:\n{complaints.read()[-2000:]}")
            return outcome


def _answer(process: subprocess.Popen[str], count: Callable[[], int]) -> Outcome | None:
    """Talk with ``benchmarks.worker``; None: it ended before it answered."""
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        return None
    before = count()
    process.stdin.write("go\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    after = count()
    # The worker may end.
    process.stdin.close()
    if not answer:
        return None
    taken = json.loads(answer)
    return Outcome(taken["seconds"], taken["cpu"], after - before)
