"""What the import says: lines for everybody, and a progress bar where there is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import make_url

from dbos_orm import WorkflowState
from examples.airports import data_set
from examples.airports.facts import Facts


class Report:
    """Tells a person how the import goes. Plain lines where the output is not a terminal."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._batches = data_set.batch_count(data_set.VERSION)
        self._began = perf_counter()
        self._is_done_already = False

    def begin(self, url: str, status: WorkflowState, *, created: bool, done: int) -> None:
        """Say what is going to happen. ``done``: the steps that are recorded, the first of them the countries."""
        self._is_done_already = status.is_terminal
        if created:
            airports, where = data_set.airport_count(data_set.VERSION), make_url(url).render_as_string()
            self._say(f"importing {airports:,} airports (airportsdata {data_set.VERSION}) into {where}")
        elif not self._is_done_already:
            self._say(f"resuming at batch {min(max(done, 1), self._batches)} of {self._batches}")

    @contextmanager
    def progress(self) -> Iterator[Callable[[int], None]]:
        """A function that is told how many steps are recorded, and draws that."""
        columns = (TextColumn("batch"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task("batches", total=self._batches)
            yield lambda steps: bar.update(task, completed=max(steps - 1, 0))
            bar.update(task, completed=self._batches)

    def end(self, airports: int) -> None:
        """Say what was done."""
        if self._is_done_already:
            self._say(f"nothing to do: the {airports:,} airports of {data_set.VERSION} are imported")
        else:
            self._say(f"{airports:,} airports are imported, after {perf_counter() - self._began:.1f} s")

    def tell(self, facts: Facts) -> None:
        """A few facts from the tables."""
        busiest = ", ".join(f"{code} {count:,}" for code, count in facts.busiest)
        self._say(f"{facts.airports:,} airports in {facts.countries} countries; the most are in: {busiest}")
        self._say(f"{facts.with_iata_code:,} have a code that is printed on luggage tags (IATA)")
        self._say(f"the highest: {facts.highest}")
        self._say(f"the furthest north: {facts.northernmost}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False)
