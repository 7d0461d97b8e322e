"""Compare this library with the floor: raw psycopg2 that does the same durable writes.

    python -m benchmarks [--url postgresql://...] [--rounds 3] [--scale 1.0]

Without a URL it starts a PostgreSQL of its own with fsync on. The contenders alternate within each round, and
what counts is the ratio in the last column: absolute figures belong to the machine and its hour.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from benchmarks import floor, ours
from tests.postgres_server import PostgresServer


@dataclass(frozen=True)
class Measurement:
    """One row of the table: a name, how many steps it makes, and the contenders with their seconds."""

    name: str
    steps: int
    floor: Callable[[], float]
    ours: Callable[[], float]


def main() -> None:
    """Run every measurement and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a PostgreSQL database whose tables may be written to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of workflows")
    options = parser.parse_args()
    with _database(options.url) as url, tempfile.TemporaryDirectory() as folder:
        table = Table("measurement", "floor steps/s", "dbos_orm steps/s", "of the floor", title="medians of the rounds")
        for measurement in _measurements(url, Path(folder), options.scale):
            floors, mine = [], []
            for _ in range(options.rounds):
                floors.append(measurement.floor())
                mine.append(measurement.ours())
            slow, fast = statistics.median(mine), statistics.median(floors)
            table.add_row(
                measurement.name,
                f"{measurement.steps / fast:,.0f}",
                f"{measurement.steps / slow:,.0f}",
                f"{fast / slow:.2f}",
            )
        Console().print(table)


def _measurements(url: str, folder: Path, scale: float) -> Iterator[Measurement]:
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    few, many = max(1, round(100 * scale)), max(1, round(500 * scale))
    sync = ours.Sync(url)
    yield Measurement(
        f"PostgreSQL, {few} serial workflows of 10 steps",
        few * 10,
        lambda: floor.serial(dsn, _prefix(), few, 10),
        lambda: sync.serial(few, 10),
    )
    yield Measurement(
        f"PostgreSQL, {many} concurrent workflows of 10 steps, floor with 32 threads",
        many * 10,
        lambda: floor.concurrent(dsn, _prefix(), many, 10),
        lambda: sync.concurrent(many, 10),
    )
    yield Measurement(
        f"PostgreSQL, {many} concurrent workflows of 10 steps, asyncio (asyncpg)",
        many * 10,
        lambda: floor.concurrent(dsn, _prefix(), many, 10),
        lambda: asyncio.run(ours.concurrent_async(url, many, 10)),
    )
    sqlite = ours.Sync(f"sqlite:///{folder / 'benchmark.sqlite'}")
    yield Measurement(
        f"SQLite, {few} serial workflows of 10 steps, against the floor on PostgreSQL",
        few * 10,
        lambda: floor.serial(dsn, _prefix(), few, 10),
        lambda: sqlite.serial(few, 10),
    )
    yield Measurement(
        f"SQLite, {many} concurrent workflows of 10 steps, against the floor on PostgreSQL",
        many * 10,
        lambda: floor.concurrent(dsn, _prefix(), many, 10),
        lambda: sqlite.concurrent(many, 10),
    )


def _prefix() -> str:
    return f"{time.time_ns():x}"


@contextmanager
def _database(url: str | None) -> Iterator[str]:
    server = None
    if url is None:
        server = PostgresServer(is_durable=True)
        url = server.address.url("postgres").render_as_string(hide_password=False)
    try:
        connection = psycopg2.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
        with connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS floor_status, floor_step")
            cursor.execute(floor.TABLES)
        connection.close()
        yield url
    finally:
        if server is not None:
            server.remove()


if __name__ == "__main__":
    main()
