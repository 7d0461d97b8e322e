"""A contender's own side of a run. Standard library only: it is run in environments of others too.

The worker prepares and warms up, says ``ready`` and waits for a line; then it works, answers with what it took,
and waits for the end of its input before it closes anything. So the counters of the server are read exactly
before and after the work.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from benchmarks.tasks import Task


class Stopwatch:
    """Around the work that counts: ``with stopwatch: ...``, once."""

    def __init__(self) -> None:
        # What the contender prints is not an answer.
        self._answers, sys.stdout = sys.stdout, sys.stderr

    def __enter__(self) -> Self:
        print("ready", file=self._answers, flush=True)
        sys.stdin.readline()
        self._cpu = time.process_time()
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began
        cpu = time.process_time() - self._cpu
        if error is None:
            print(json.dumps({"seconds": seconds, "cpu": cpu}), file=self._answers, flush=True)
            sys.stdin.read()


def main(work: Callable[[Task, Stopwatch], None]) -> None:
    """Run the task on the command line."""
    work(Task.from_json(sys.argv[1]), Stopwatch())
