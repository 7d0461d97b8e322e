"""Compare this library with DBOS and with the floor: raw drivers that do the same durable writes.

Without a URL it starts a PostgreSQL of its own with fsync on. The contenders alternate within each round, and
what counts are the ratios: absolute figures belong to the machine and its hour. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from benchmarks import report
from benchmarks.contender import Contender
from benchmarks.databases import databases_at
from benchmarks.environment import NoEnvironmentError, dbos_interpreter
from benchmarks.measurements import measurements
from benchmarks.rounds import measure

OURS = Contender("dbos_orm", "ours")
FLOORS = (
    Contender("floor", "floor", enters=lambda task: not task.is_sqlite),
    Contender("floor", "sqlite_floor", enters=lambda task: task.is_sqlite),
    Contender("grouped", "grouped_floor", enters=lambda task: task.is_concurrent and not task.is_sqlite),
)
# Of what is not printed to a wider terminal.
WIDTH = 125


def main() -> int:
    """Run the measurements and print the tables; return the exit code."""
    options = _options()
    console = Console(stderr=True)
    contenders = [OURS, *FLOORS]
    if not options.without_dbos:
        try:
            contenders.insert(1, Contender("DBOS", "dbos_transact", dbos_interpreter(console.print)))
        except NoEnvironmentError as error:
            console.print(str(error), markup=False)
            return 1
    rows = {}
    with databases_at(options.url) as databases, console.status("") as status:
        title = databases.describe()
        for measurement in measurements(scale=options.scale, only=options.only):

            def show(text: str, name: str = measurement.name) -> None:
                status.update(f"{name}: {text}")

            rows[measurement.name] = measure(
                measurement.task, contenders, databases, rounds=options.rounds, progress=show
            )
    names = list(dict.fromkeys(each.name for each in contenders))
    output = Console(width=max(WIDTH, console.width))
    output.print(f"{title}; medians of {options.rounds} rounds")
    output.print(report.speed(rows, names))
    output.print(report.costs(rows, names[:3]))
    return 0


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
