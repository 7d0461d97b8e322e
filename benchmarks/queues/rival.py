"""A contender with queues, as seen from here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.program import Program, running
from benchmarks.queues.task import Part, QueueTask


@dataclass(frozen=True)
class Rival:
    """The module ``key`` of ``benchmarks.queues.contenders``, run by ``interpreter``.

    ``unfinished`` tells, as SQL, whether something in the queue has not ended, and ``finished`` counts what has
    ended well. ``crowd`` inserts ``{count}`` rows of a ``{status}``. ``has_results``: a start can be followed by a
    wait for its result. ``is_async``: its functions are coroutines where nothing else is asked for.
    """

    name: str
    key: str
    unfinished: str
    finished: str
    crowd: str = ""
    has_results: bool = True
    is_async: bool = False
    interpreter: Path = Path(sys.executable)

    @contextmanager
    def at_work(self, task: QueueTask) -> Iterator[Program]:
        """A process that plays a part, and is ready for the line that lets it begin."""
        with running(self.interpreter, f"benchmarks.queues.contenders.{self.key}", task.to_json()) as program:
            assert program.hear() == "ready"
            yield program

    def fill(self, url: str, count: int, *, is_async: bool = False) -> None:
        """Create the tables and the queue in an empty database, and put that many into it."""
        with self.at_work(QueueTask(Part.FILL, count, is_async, url)) as program:
            program.tell("go")
            assert program.hear() == "done"

    @contextmanager
    def consuming(self, url: str, *, processes: int = 1, is_async: bool = False) -> Iterator[list[Program]]:
        """Processes that are ready to consume."""
        with ExitStack() as stack:
            task = QueueTask(Part.CONSUME, 0, is_async, url)
            yield [stack.enter_context(self.at_work(task)) for _ in range(processes)]


@dataclass(frozen=True)
class Answer:
    """What a process knows at its end: seconds of processor time since it began, what it timed, and instants."""

    cpu: float
    seconds: float
    begun: dict[int, float] = field(default_factory=dict)
    started: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program) -> Self:
        """Let the process end, and hear what it knows."""
        program.close_input()
        facts: dict[str, Any] = json.loads(program.hear())
        instants = {name: dict(facts[name]) for name in ("begun", "started", "ended")}
        return cls(facts["cpu"], facts["seconds"], **instants)


def go(programs: Sequence[Program]) -> None:
    """Let them all begin."""
    for program in programs:
        program.tell("go")
