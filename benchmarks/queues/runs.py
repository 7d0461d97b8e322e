"""Who does what when in one run of a measurement, and what is taken from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.program import Program, RunFailedError
from benchmarks.queues.rival import Answer, Rival, go
from benchmarks.queues.server import Database
from benchmarks.queues.task import Part, QueueTask
from benchmarks.relay import Relay

# Seconds between two looks at the database, for a drain at most, and of an idle process that settles and is watched.
LOOK = 0.005
PATIENCE = 300.0
SETTLING = 3.0
WATCHED = 10.0
# Starts that do not count: connections and caches.
WARM_UP = 5


class Unit(StrEnum):
    """What a figure is in, and whether more of it is better."""

    RATE = "1/s"
    MILLISECONDS = "ms"
    PER_SECOND = "per s"
    MICROSECONDS = "us"

    @property
    def is_more_better(self) -> bool:
        """Whether who has the larger figure is ahead."""
        return self is Unit.RATE


# What a run comes to: figures by the name of the row that they are in, with the unit.
Figures = dict[str, tuple[float, Unit]]


@dataclass(frozen=True)
class Drain:
    """``count`` are in the queue; from the launch of the consumers until the last has ended.

    ``finished`` others have ended before, in another queue.
    """

    count: int
    is_async: bool = False
    processes: int = 1
    finished: int = 0

    def run(self, rival: Rival, database: Database) -> Figures:
        """Rate, and processor time of the consumers for each."""
        rival.fill(database.url, self.count)
        if self.finished:
            database.execute(rival.crowd.format(status="SUCCESS", count=self.finished))
            database.analyze()
        database.settle()
        with rival.consuming(database.url, processes=self.processes, is_async=self.is_async) as programs:
            began = time.perf_counter()
            go(programs)
            _await_end(rival, database, programs)
            seconds = time.perf_counter() - began
            cpu = sum(Answer.of(program).cpu for program in programs)
        finished = database.number(rival.finished)
        if finished != self.count:
            raise RunFailedError(f"{rival.name}: {self.count} were in the queue, and {finished} ended well")
        return {"": (self.count / seconds, Unit.RATE), "CPU for each": (cpu / self.count * 1e6, Unit.MICROSECONDS)}


@dataclass(frozen=True)
class Latency:
    """``count`` starts on an idle queue, one after another, from the consuming process or from another."""

    count: int
    is_other_process: bool

    def run(self, rival: Rival, database: Database) -> Figures:
        """Median and 99th percentile from the call of the start to the result, and to the begin of the function."""
        rival.fill(database.url, 0)
        database.settle()
        begun, client = self._apart(rival, database.url) if self.is_other_process else self._together(rival, database)
        to_begin = [begun[number] - client.started[number] for number in client.started if number in begun]
        figures = _percentiles("to begin", to_begin[WARM_UP:])
        if rival.has_results:
            to_result = [client.ended[number] - client.started[number] for number in client.ended]
            figures |= _percentiles("to result", to_result[WARM_UP:])
        return figures

    def _together(self, rival: Rival, database: Database) -> tuple[dict[int, float], Answer]:
        with rival.at_work(QueueTask(Part.ECHO, self.count, rival.is_async, database.url)) as program:
            program.tell("go")
            program.hear()
            time.sleep(1)
            answer = Answer.of(program)
        return answer.begun, answer

    def _apart(self, rival: Rival, url: str) -> tuple[dict[int, float], Answer]:
        with (
            rival.consuming(url, is_async=rival.is_async) as consumers,
            rival.at_work(QueueTask(Part.CALL, self.count, url=url)) as program,
        ):
            go(consumers)
            time.sleep(SETTLING)
            program.tell("go")
            program.hear()
            time.sleep(1)
            return Answer.of(consumers[0]).begun, Answer.of(program)


@dataclass(frozen=True)
class Enqueue:
    """``count`` starts with nobody consuming: one after another, or all in one transaction."""

    count: int
    is_one_transaction: bool

    def run(self, rival: Rival, database: Database) -> Figures:
        """Rate."""
        rival.fill(database.url, 0)
        database.settle()
        part = Part.START_MANY if self.is_one_transaction else Part.START
        with rival.at_work(QueueTask(part, self.count, url=database.url)) as program:
            program.tell("go")
            program.hear()
            seconds = Answer.of(program).seconds
        return {"": (self.count / seconds, Unit.RATE)}


@dataclass(frozen=True)
class Claim:
    """``count`` claims of twenty workflows, among ``finished`` and ``waiting`` ones."""

    count: int
    finished: int
    waiting: int

    def run(self, rival: Rival, database: Database) -> Figures:
        """Milliseconds for a claim, its commit included."""
        rival.fill(database.url, 0)
        for status, count in (("SUCCESS", self.finished), ("ENQUEUED", self.waiting)):
            database.execute(rival.crowd.format(status=status, count=count))
        database.analyze()
        database.settle()
        with rival.at_work(QueueTask(Part.CLAIM, self.count, url=database.url)) as program:
            program.tell("go")
            program.hear()
            seconds = Answer.of(program).seconds
        return {"": (seconds / self.count * 1e3, Unit.MILLISECONDS)}


@dataclass(frozen=True)
class Idle:
    """A process that waits for work: what it asks of the server."""

    def run(self, rival: Rival, database: Database) -> Figures:
        """Round trips in a second, counted by a relay for ten seconds."""
        rival.fill(database.url, 0)
        with (
            Relay(database.url) as relay,
            rival.consuming(relay.through(database.url), is_async=rival.is_async) as programs,
        ):
            go(programs)
            time.sleep(SETTLING)
            before = relay.round_trips
            time.sleep(WATCHED)
            counted = relay.round_trips - before
        return {"": (counted / WATCHED, Unit.PER_SECOND)}


def _await_end(rival: Rival, database: Database, programs: Sequence[Program]) -> None:
    until = time.monotonic() + PATIENCE
    while database.tells(rival.unfinished):
        for program in programs:
            program.require_alive()
        if time.monotonic() > until:
            raise RunFailedError(f"{rival.name}: the queue was not empty after {PATIENCE:.0f} s")
        time.sleep(LOOK)


def _percentiles(name: str, seconds: list[float]) -> Figures:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {
        f"{name}, p{percent}": (ordered[(len(ordered) - 1) * percent // 100] * 1e3, Unit.MILLISECONDS)
        for percent in (50, 99)
    }
