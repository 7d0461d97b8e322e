"""A contender as seen from here: a program that is given a task and answers what it took."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tasks import Task

ROOT = Path(__file__).parents[1]


class RunFailedError(Exception):
    """A contender ended before it had done its task; the end of what it wrote is in the message."""


@dataclass(frozen=True)
class Outcome:
    """What a run took: seconds, seconds of processor time in the client, and commits if somebody counted them."""

    seconds: float
    cpu: float
    before: int
    after: int

    @property
    def counted(self) -> int:
        """By how much the counter rose while the work was done."""
        return self.after - self.before


@dataclass(frozen=True)
class Contender:
    """``module`` is run by ``interpreter`` for each task, in a process of its own."""

    name: str
    module: str
    interpreter: Path = Path(sys.executable)

    def run(self, task: Task, count: Callable[[], int]) -> Outcome:
        """Have the task done once; ``count`` is read directly before the work and directly after.

        Raises:
            RunFailedError: the program ended early.
        """
        with tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen(
                [self.interpreter, "-m", self.module, task.to_json()],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            with process:
                is_ready = process.stdout.readline() == "ready\n"
                before = count()
                if is_ready:
                    process.stdin.write("go\n")
                    process.stdin.flush()
                answer = process.stdout.readline()
                after = count()
                process.stdin.close()
            if not answer:
                complaints.seek(0)
                raise RunFailedError(f"{self.name} failed at {task}:\n{complaints.read()[-2000:]}")
        taken = json.loads(answer)
        return Outcome(taken["seconds"], taken["cpu"], before, after)
