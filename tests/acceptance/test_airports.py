"""The main job on real data: an import of 28,000 airports, killed at random, ends with exactly the right rows."""

from __future__ import annotations

import csv
import random
import time
from collections import Counter
from pathlib import Path

import airportsdata
import pytest
from sqlalchemy import Engine, inspect, text

from tests.databases import TestDatabase, sqlite_url
from tests.engines import engine_for
from tests.processes import ChildProcess, Processes, eventually

Rows = list[tuple[object, ...]]

SOURCE = Path(airportsdata.__file__).with_name("airports.csv")
BATCH_SIZE = 500
BATCHES = 57
STEPS = BATCHES + 1  # The first one imports countries and subdivisions.
PATIENCE = 120.0
ASYNC = pytest.mark.parametrize("options", [[], ["--async"]], ids=["sync", "async"])


def start(processes: Processes, database: TestDatabase, *options: str) -> ChildProcess:
    url = database.url.render_as_string(hide_password=False)
    return processes.start_module("examples.airports", *options, environment={"DBOS_DATABASE_URL": url})


def csv_rows() -> list[dict[str, str]]:
    with SOURCE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected_airports() -> Rows:
    return sorted(
        (
            *(row["icao"], row["iata"] or None, row["lid"] or None, row["name"], row["city"] or None),
            *(row["country"], row["subd"] or None, float(row["elevation"])),
            *(float(row["lat"]), float(row["lon"]), row["tz"] or None),
        )
        for row in csv_rows()
    )


def imported(engine: Engine, table: str) -> Rows:
    """All rows of a table; sorted here, because the databases sort text in different ways."""
    with engine.connect() as connection:
        return sorted(tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}")))


def assert_exactly_the_rows_of_the_source(engine: Engine) -> None:
    assert imported(engine, "airport") == expected_airports()
    rows = csv_rows()
    assert imported(engine, "subdivision") == sorted({(r["country"], r["subd"]) for r in rows if r["subd"]})
    assert imported(engine, "country") == sorted({(r["country"],) for r in rows})


def recorded_steps(engine: Engine) -> int:
    """How many steps are recorded, seen by a reader who holds up nobody."""
    with engine.connect().execution_options(sqlite_deferred=True) as connection:
        if "dbos_step_output" not in inspect(connection).get_table_names():
            return 0
        return int(connection.execute(text("SELECT count(*) FROM dbos_step_output")).scalar_one())


def airports_and_steps(engine: Engine) -> tuple[int, int]:
    """Both counts at one instant: the server may still commit what a killed process has sent."""
    query = "SELECT (SELECT count(*) FROM airport), (SELECT count(*) FROM dbos_step_output)"
    with engine.connect() as connection:
        airports, steps = connection.execute(text(query)).one()
    return airports, steps


def workflows(engine: Engine) -> Rows:
    return imported(engine, "(SELECT workflow_id, status FROM dbos_workflow_status) AS workflows")


def kill_when_recorded(child: ChildProcess, engine: Engine, steps: int, delay: float) -> None:
    """SIGKILL, ``delay`` seconds after that many steps are recorded."""
    eventually(lambda: recorded_steps(engine) >= steps, timeout=PATIENCE, what=f"{steps} steps")
    time.sleep(delay)  # Not to wait for anything: so that it dies in the midst of something.
    child.kill()


@ASYNC
def test_an_import_that_is_killed_again_and_again_ends_with_exactly_the_right_rows(
    empty_database: TestDatabase, processes: Processes, options: list[str]
) -> None:
    engine = empty_database.make_engine()
    chance = random.Random(f"{empty_database.backend} {options}")
    before = 0
    for steps in sorted(chance.sample(range(1, STEPS - 5), 3)):
        child = start(processes, empty_database, *options)
        kill_when_recorded(child, engine, steps, chance.uniform(0, 0.05))
        airports, before = airports_and_steps(engine)
        assert airports == BATCH_SIZE * (before - 1), "the rows and the record of a batch are one commit"

    child = start(processes, empty_database, *options)
    # It may be some batches further by the time that it is asked.
    resuming = child.wait_for_line("resuming at batch ")
    assert before <= int(resuming.split()[3]) <= BATCHES
    assert resuming.endswith(f" of {BATCHES}")
    # The death of the one before it can be proved on this host; otherwise this would take the lease of 30 s.
    eventually(lambda: recorded_steps(engine) > before, timeout=20, what="it resumes at once")
    child.succeed(timeout=PATIENCE)
    assert_exactly_the_rows_of_the_source(engine)
    assert recorded_steps(engine) == STEPS
    assert workflows(engine) == [(f"airports-{airportsdata.__version__}", "SUCCESS")]


def test_the_import_tells_facts_at_its_end_and_a_second_run_does_nothing(
    empty_database: TestDatabase, processes: Processes
) -> None:
    engine = empty_database.make_engine()
    lines = start(processes, empty_database).succeed(timeout=PATIENCE)
    assert lines[0].startswith(f"importing 28,298 airports (airportsdata {airportsdata.__version__}) into ")
    assert lines[2:] == expected_facts()
    assert not any("\x1b" in line for line in lines), "no progress bar where there is no terminal"
    assert_exactly_the_rows_of_the_source(engine)

    def everything() -> list[Rows]:
        return [imported(engine, table) for table in ("airport", "dbos_step_output", "dbos_workflow_status")]

    before = everything()
    again = start(processes, empty_database).succeed(timeout=PATIENCE)
    assert again[0] == f"nothing to do: the 28,298 airports of {airportsdata.__version__} are imported"
    assert again[1:] == expected_facts()
    assert everything() == before


def expected_facts() -> list[str]:
    """The facts, found without a database."""
    rows = csv_rows()
    count = Counter(row["country"] for row in rows)
    most = ", ".join(f"{country} {airports:,}" for country, airports in count.most_common(5))
    highest = max(rows, key=lambda row: float(row["elevation"]))
    northernmost = max(rows, key=lambda row: float(row["lat"]))
    return [
        f"{len(rows):,} airports in {len(count)} countries; the most are in: {most}",
        f"{sum(bool(row['iata']) for row in rows):,} have a code that is printed on luggage tags (IATA)",
        f"the highest: {place(highest)}, {float(highest['elevation']):,.0f} feet above the sea",
        f"the furthest north: {place(northernmost)}, at {float(northernmost['lat']):.1f} degrees north",
    ]


def place(row: dict[str, str]) -> str:
    return ", ".join(filter(None, [row["name"], row["city"], row["country"]]))


def test_the_asynchronous_import_finishes_what_the_other_began(processes: Processes, tmp_path: Path) -> None:
    engine = engine_for(sqlite_url(tmp_path / "world.db"))
    arguments = ("examples.airports", "--database", "world.db")
    kill_when_recorded(processes.start_module(*arguments), engine, 20, 0.0)
    processes.start_module(*arguments, "--async").succeed(timeout=PATIENCE)
    assert_exactly_the_rows_of_the_source(engine)
    assert recorded_steps(engine) == STEPS
    engine.dispose()


def test_two_imports_at_once_import_every_airport_once(processes: Processes, empty_database: TestDatabase) -> None:
    engine = empty_database.make_engine()
    first = start(processes, empty_database)
    eventually(lambda: recorded_steps(engine) >= 1, timeout=PATIENCE, what="the first step")
    second = start(processes, empty_database)
    for child in (first, second):
        # Who comes late has one line less to say in front of them.
        assert child.succeed(timeout=PATIENCE)[-len(expected_facts()) :] == expected_facts()
    assert_exactly_the_rows_of_the_source(engine)
    assert recorded_steps(engine) == STEPS


def test_an_import_does_not_go_on_with_another_version_of_the_data_set(
    processes: Processes, sqlite_database: TestDatabase
) -> None:
    child = processes.start_script(
        """
        import sys
        from examples.airports.importing import dbos, create_tables, import_airports

        with dbos.launch(sys.argv[1]):
            create_tables()
            try:
                import_airports.options(workflow_id="airports-19700101")("19700101")
            except Exception as error:
                print(error)
        """,
        str(sqlite_database.url),
    )
    [line] = child.succeed(timeout=PATIENCE)
    assert "this import was begun with '19700101'" in line
    assert imported(sqlite_database.make_engine(), "airport") == []


def test_the_quickstart_runs_and_runs_again(processes: Processes) -> None:
    first = processes.start_module("examples.quickstart").succeed()
    assert first == ["order 1: paid 4500, receipt-1", "reserve: 4500", "charge: 'receipt-1'"]
    assert processes.start_module("examples.quickstart").succeed()[0] == "order 2: paid 4500, receipt-2"
