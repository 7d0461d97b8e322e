"""The schedule, its workflow, and what one run of it does."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import airportsdata
from sqlalchemy.orm import Session

from dbos_orm import DBOS
from examples.scheduled_report.models import Base, Report, ReportLine

DAY = range(6, 22)
"""The hours that count as day, on the clock of the airport."""

dbos = DBOS(name="reports")
folder = Path("reports")
"""Where ``publish`` puts its files; the command may name another one."""


@cache
def airports_by_zone() -> Counter[tuple[str, str]]:
    """How many airports each country has in each of its time zones."""
    return Counter((row["country"], row["tz"]) for row in airportsdata.load().values() if row["tz"])


@dbos.transaction
def create_tables(session: Session) -> None:
    Base.metadata.create_all(session.connection())


@dbos.transaction
def count(session: Session, slot: datetime) -> int:
    """Write the report of a slot, and give how many airports have day. The rows and this step are one commit."""
    lines: dict[str, ReportLine] = {}
    for (country, zone), airports in airports_by_zone().items():
        line = lines.setdefault(country, ReportLine(country=country, airports=0, in_daylight=0))
        line.airports += airports
        line.in_daylight += airports if slot.astimezone(ZoneInfo(zone)).hour in DAY else 0
    in_daylight = sum(line.in_daylight for line in lines.values())
    session.add(
        Report(
            slot=slot,
            airports=sum(line.airports for line in lines.values()),
            in_daylight=in_daylight,
            lines=list(lines.values()),
        )
    )
    return in_daylight


@dbos.step
def publish(slot: datetime, in_daylight: int) -> str:
    """Put the report where people find it. Done twice, it is the same file: a step may be repeated after a crash."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{slot:%Y-%m-%dT%H%MZ}.txt"
    text = f"{slot:%d %B %Y, %H:%M} UTC: day at {in_daylight:,} of {airports_by_zone().total():,} airports\n"
    unfinished = file.with_suffix(".part")
    unfinished.write_text(text)
    unfinished.replace(file)
    return text.strip()


@dbos.scheduled("0 * * * *", name="hourly", catch_up="all")
@dbos.workflow
def report(scheduled_at: datetime, actual_at: datetime) -> str:
    """Report on the hour it is made for, ``scheduled_at``, however late it is made."""
    return publish(scheduled_at, count(scheduled_at))
