"""Compare this library with DBOS and with the floor: raw psycopg2 that does the same durable writes.

Without a URL it starts a PostgreSQL of its own with fsync on. The contenders alternate within each round, and
what counts are the ratios: absolute figures belong to the machine and its hour. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from rich.console import Console
from rich.table import Table

from benchmarks.contender import Contender, Outcome, RunFailedError
from benchmarks.environment import DBOS_VERSION, NoEnvironmentError, dbos_interpreter
from benchmarks.measurements import measurements
from benchmarks.server import server_at


def main() -> int:
    """Run the measurements and print the table."""
    options = _options()
    contenders = [
        Contender("floor", "benchmarks.contenders.floor"),
        Contender("dbos_orm", "benchmarks.contenders.ours"),
    ]
    if not options.without_dbos:
        try:
            interpreter = dbos_interpreter()
        except NoEnvironmentError as error:
            print(error, file=sys.stderr)
            return 1
        contenders.append(Contender(f"DBOS {DBOS_VERSION}", "benchmarks.contenders.dbos_transact", interpreter))
    with server_at(options.url) as server:
        table = Table(
            "steps/s", *(each.name for each in contenders), "ours / floor", "ours / DBOS", title=server.describe()
        )
        urls = {each.name: server.create_database(str(number)) for number, each in enumerate(contenders)}
        for measurement in measurements(options.scale):
            if options.only not in measurement.name:
                continue
            outcomes: dict[str, list[Outcome]] = {each.name: [] for each in contenders}
            for _ in range(options.rounds):
                for each in contenders:
                    try:
                        outcome = each.run(measurement.task.at(urls[each.name]), server.count_writing_transactions)
                    except RunFailedError as error:
                        print(error, file=sys.stderr)
                        continue
                    outcomes[each.name].append(outcome)
            medians = [
                statistics.median(outcome.seconds for outcome in taken) if taken else float("nan")
                for taken in outcomes.values()
            ]
            table.add_row(
                measurement.name,
                *(f"{measurement.task.units / median:,.0f}" for median in medians),
                f"{medians[0] / medians[1]:.2f}",
                *(f"{median / medians[1]:.1f}" for median in medians[2:]),
            )
        for url in urls.values():
            server.drop_database(url)
    Console().print(table)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a PostgreSQL server on which databases may be created")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of workflows")
    parser.add_argument("--only", default="", metavar="NAME", help="the measurements with this in their name")
    parser.add_argument("--without-dbos", action="store_true", help="only this library and the floor")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
