"""The rounds of the measurements of queues, and their table."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

from rich.table import Table

from benchmarks.program import RunFailedError
from benchmarks.queues.measurements import Measurement
from benchmarks.queues.rival import Rival
from benchmarks.queues.runs import Unit
from benchmarks.queues.server import Database
from benchmarks.report import MISSING, plain_table

# The values of every round, by the row and then by the contender's name.
Rows = dict[tuple[str, Unit], dict[str, list[float]]]


def measure(
    measurement: Measurement, rivals: Sequence[Rival], server: str, *, rounds: int, progress: Callable[[str], None]
) -> Rows:
    """Run everyone once in each round, each beginning with another one, on an empty database each.

    What is ours alone is run by the first. One whose run failed is left out of that round, with a word on stderr.
    """
    rows: Rows = {}
    rivals = rivals[:1] if measurement.is_ours_alone else rivals
    for number in range(rounds):
        first = number % len(rivals)
        for rival in [*rivals[first:], *rivals[:first]]:
            progress(f"round {number + 1} of {rounds}: {rival.name}")
            try:
                with Database(server, f"dbos_orm_benchmark_{rival.key}") as database:
                    figures = measurement.kind.run(rival, database)
            except RunFailedError as error:
                print(error, file=sys.stderr)
                continue
            for row, (value, unit) in figures.items():
                title = f"{measurement.name}, {row}" if row else measurement.name
                rows.setdefault((title, unit), {}).setdefault(rival.name, []).append(value)
    return rows


def table(rows: Rows, names: Sequence[str]) -> Table:
    """Medians of everyone, and how many times as good the first is as each of the others."""
    ours, *others = names
    printed = plain_table("")
    for name in ("", *names):
        printed.add_column(name, justify="right", no_wrap=True)
    for name in others:
        printed.add_column(f"{ours} /\n{name}", justify="right", no_wrap=True)
    for (title, unit), values in rows.items():
        medians = {name: statistics.median(known) for name, known in values.items()}
        cells = [_shown(medians.get(name)) for name in names]
        printed.add_row(title, unit, *cells, *(_ratio(medians, ours, name, unit) for name in others))
    return printed


def _shown(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(medians: Mapping[str, float], ours: str, other: str, unit: Unit) -> str:
    if not medians.get(ours) or not medians.get(other):
        return MISSING
    ratio = medians[ours] / medians[other]
    return f"{ratio if unit.is_more_better else 1 / ratio:.3g}"
