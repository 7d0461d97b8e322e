"""A contender as seen from here: a program that is given a task and answers what it took."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.program import running
from benchmarks.tasks import Task


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
        with running(self.interpreter, f"benchmarks.contenders.{self.key}", task.to_json()) as program:
            program.hear()
            before = count()
            program.tell("go")
            answer = program.hear()
            after = count()
            taken = json.loads(answer)
            return Outcome(taken["seconds"], taken["cpu"], after - before)
