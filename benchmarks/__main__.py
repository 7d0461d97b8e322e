"""Compare this library with DBOS and with the floor: raw drivers that do the same durable writes.

Without a URL it starts a PostgreSQL of its own with fsync on. The contenders alternate within each round, and
what counts are the ratios: absolute figures belong to the machine and its hour. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.status import Status
from rich.table import Table

from benchmarks import report
from benchmarks.contender import Contender
from benchmarks.databases import Databases, databases_at
from benchmarks.environment import DBOS, NoEnvironmentError, interpreter_with
from benchmarks.measurements import measurements
from benchmarks.queues import table as queues
from benchmarks.queues.measurements import measurements as queue_measurements
from benchmarks.queues.rivals import rivals
from benchmarks.rounds import measure

OURS = Contender("dbos_orm", "ours")
FLOORS = (
    Contender("floor", "floor", enters=lambda task: not task.is_sqlite),
    Contender("floor", "sqlite_floor", enters=lambda task: task.is_sqlite),
    Contender("grouped", "grouped_floor", enters=lambda task: task.is_concurrent and not task.is_sqlite),
)
# Of what is not printed to a wider terminal.
WIDTH = 160


def main() -> int:
    """Run the measurements and print the tables; return the exit code."""
    options = _options()
    console = Console(stderr=True)
    try:
        with databases_at(options.url) as databases, console.status("") as status:
            tables = list(_tables(options, databases, console, status))
            title = databases.describe()
    except NoEnvironmentError as error:
        console.print(str(error), markup=False)
        return 1
    output = Console(width=max(WIDTH, console.width))
    output.print(f"{title}; medians of {options.rounds} rounds")
    for table in tables:
        output.print(table)
    return 0


def _tables(options: argparse.Namespace, databases: Databases, console: Console, status: Status) -> Iterator[Table]:
    if chosen := measurements(scale=options.scale, only=options.only):
        contenders = [OURS, *FLOORS]
        if not options.without_dbos:
            contenders.insert(1, Contender("DBOS", "dbos_transact", interpreter_with(DBOS, console.print)))
        rows = {
            each.name: measure(
                each.task, contenders, databases, rounds=options.rounds, progress=_progress(status, each.name)
            )
            for each in chosen
        }
        names = list(dict.fromkeys(each.name for each in contenders))
        yield report.speed(rows, names)
        yield report.costs(rows, names[:3])
    if wanted := queue_measurements(scale=options.scale, only=options.only):
        everyone = rivals(console.print, without_others=options.without_dbos)
        found: queues.Rows = {}
        for each in wanted:
            progress = _progress(status, each.name)
            found |= queues.measure(each, everyone, databases.server, rounds=options.rounds, progress=progress)
        yield queues.table(found, [each.name for each in everyone])


def _progress(status: Status, name: str) -> Callable[[str], None]:
    def show(text: str) -> None:
        status.update(f"{name}: {text}")

    return show


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a PostgreSQL server on which databases may be created")
    parser.add_argument("--rounds", type=int, default=3, help="how often everybody runs (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of workflows (default: 1)")
    parser.add_argument("--only", default="", metavar="NAME", help="the measurements with this in their name")
    parser.add_argument("--without-dbos", action="store_true", help="only this library and the floor")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
