"""The two tables: speed with its ratios, and what a step costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich import box
from rich.table import Table

from benchmarks.rounds import Result

MISSING = "-"

# The results of one measurement, by the contender's name.
Results = Mapping[str, Result]


def speed(rows: Mapping[str, Results], contenders: Sequence[str]) -> Table:
    """Steps per second of everyone, and how many times as fast the first is as each of the others."""
    ours, *others = contenders
    table = plain_table("steps/s (without steps: workflows/s)")
    for name in contenders:
        table.add_column(name, justify="right", no_wrap=True)
    for name in others:
        table.add_column(f"{ours} /\n{name}", justify="right", no_wrap=True)
    for measurement, results in rows.items():
        rates = [_shown(results.get(name), lambda result: f"{1 / result.seconds:,.0f}") for name in contenders]
        ratios = [_ratio(results.get(name), results.get(ours)) for name in others]
        table.add_row(measurement, *rates, *ratios)
    return table


def costs(rows: Mapping[str, Results], contenders: Sequence[str]) -> Table:
    """Round trips, commits and processor time in the client."""
    quantities: dict[str, Callable[[Result], str]] = {
        "trips": lambda result: _number(result.round_trips),
        "commits": lambda result: _number(result.commits),
        "CPU us": lambda result: f"{result.cpu * 1e6:,.0f}",
    }
    table = plain_table("for each step (without: each workflow)")
    for quantity in quantities:
        for name in contenders:
            table.add_column(f"{quantity}\n{name}", justify="right", no_wrap=True)
    for measurement, results in rows.items():
        cells = [_shown(results.get(name), show) for show in quantities.values() for name in contenders]
        table.add_row(measurement, *cells)
    return table


def plain_table(first: str) -> Table:
    """A table with a line under its head, and this first column."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    return table


def _shown(result: Result | None, show: Callable[[Result], str]) -> str:
    return MISSING if result is None else show(result)


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"


def _ratio(theirs: Result | None, ours: Result | None) -> str:
    return MISSING if theirs is None or ours is None else f"{theirs.seconds / ours.seconds:.3g}"
