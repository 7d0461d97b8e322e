"""The example of a scheduled report: killed and run again, it has one right report for each hour."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import airportsdata
from sqlalchemy import select
from sqlalchemy.orm import Session

from dbos_orm.models import Schedule
from examples.scheduled_report.models import Report
from tests.databases import TestDatabase
from tests.processes import ChildProcess, Processes

SOURCE = Path(airportsdata.__file__).with_name("airports.csv")
HOURS = 12


def start(processes: Processes, database: TestDatabase, folder: Path) -> ChildProcess:
    url = database.url.render_as_string(hide_password=False)
    arguments = ["--hours", str(HOURS), "--folder", str(folder)]
    return processes.start_module("examples.scheduled_report", *arguments, environment={"DBOS_DATABASE_URL": url})


def in_daylight(slot: datetime) -> int:
    with SOURCE.open(encoding="utf-8", newline="") as file:
        zones = [row["tz"] for row in csv.DictReader(file) if row["tz"]]
    hours = {zone: slot.astimezone(ZoneInfo(zone)).hour for zone in set(zones)}
    return sum(6 <= hours[zone] < 22 for zone in zones)


def test_a_killed_reporter_is_continued_and_each_hour_has_one_report(
    processes: Processes, database: TestDatabase, tmp_path: Path
) -> None:
    folder = tmp_path / "reports"
    killed = start(processes, database, folder)
    killed.wait_for_line("UTC: day at")
    killed.kill()
    printed = start(processes, database, folder).succeed()
    again = start(processes, database, folder).succeed()

    assert len(printed) in (HOURS, HOURS + 1)  # The clock may have struck meanwhile.
    assert sum("was made before" in line for line in again) >= HOURS - 1
    with Session(database.make_engine()) as session:
        reports = session.scalars(select(Report).order_by(Report.slot)).all()
        first = reports[0].slot
        assert [report.slot for report in reports] == [first + timedelta(hours=each) for each in range(len(reports))]
        for report in (reports[0], reports[-1]):
            assert report.in_daylight == in_daylight(report.slot)
            assert report.in_daylight == sum(line.in_daylight for line in report.lines)
            assert report.airports == sum(line.airports for line in report.lines)
        schedule = session.scalars(select(Schedule)).one()
        assert schedule.next_fire_at is not None
        assert schedule.next_fire_at > datetime.now(UTC) - timedelta(minutes=1)
    assert sorted(file.name for file in folder.iterdir() if file.suffix == ".txt") == [
        f"{report.slot:%Y-%m-%dT%H%MZ}.txt" for report in reports
    ]
