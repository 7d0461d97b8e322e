"""The runs of one measurement, the contenders alternating, and what follows from them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.contender import Contender, Outcome
from benchmarks.databases import Databases
from benchmarks.program import RunFailedError
from benchmarks.relay import Relay
from benchmarks.tasks import Task

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What one contender took for one step, or for one workflow where there are no steps.

    Times are seconds, and medians of the rounds, as is ``commits``. ``round_trips`` are from a run of their own.
    What a database cannot tell is None.
    """

    seconds: float
    cpu: float
    commits: float | None
    round_trips: float | None


def measure(
    task: Task, contenders: Sequence[Contender], databases: Databases, *, rounds: int, progress: Progress
) -> dict[str, Result]:
    """The results by the contender's name; one whose run failed is left out, with a word on stderr.

    Within a round everyone runs once, and each round begins with another one.
    """
    entered = [each for each in contenders if each.enters(task)]
    timed: dict[str, list[Outcome]] = {each.name: [] for each in entered}
    for number in range(rounds):
        first = number % len(entered)
        for each in entered[first:] + entered[:first]:
            progress(f"round {number + 1} of {rounds}: {each.name}")
            timed[each.name] += _run(each, task, databases)
    results = {}
    for each in entered:
        if outcomes := timed[each.name]:
            progress(f"round trips: {each.name}")
            results[each.name] = _result(task, outcomes, None if task.is_sqlite else _count(each, task, databases))
    return results


def _run(contender: Contender, task: Task, databases: Databases) -> list[Outcome]:
    url = databases.url(contender.key, is_sqlite=task.is_sqlite)
    try:
        return [contender.run(task.at(url), databases.count_writing_transactions)]
    except RunFailedError as error:
        print(error, file=sys.stderr)
        return []


def _count(contender: Contender, task: Task, databases: Databases) -> float | None:
    """Round trips for one step, in a run by way of a relay, whose time does not count."""
    url = databases.url(contender.key, is_sqlite=False)
    with Relay(url) as relay:
        try:
            return contender.run(task.at(relay.through(url)), lambda: relay.round_trips).counted / task.units
        except RunFailedError as error:
            print(error, file=sys.stderr)
            return None


def _result(task: Task, outcomes: Sequence[Outcome], round_trips: float | None) -> Result:
    return Result(
        seconds=statistics.median(each.seconds for each in outcomes) / task.units,
        cpu=statistics.median(each.cpu for each in outcomes) / task.units,
        commits=None if task.is_sqlite else statistics.median(each.counted for each in outcomes) / task.units,
        round_trips=round_trips,
    )
