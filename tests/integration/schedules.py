"""Schedules whose rows a test sets back, as if time had passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Config
from dbos_orm._services.scheduler import CronService
from dbos_orm.models import Schedule, WorkflowStatus
from tests.databases import TestDatabase
from tests.integration.shop import reading

RARELY = "0 0 1 1 *"
"""Not while a test runs."""
_LAST = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=12)
DAILY = f"{_LAST.minute} {_LAST.hour} * * *"
"""At a time of the day that is far from now, so that no slot comes while a test runs."""
STILL = Config(tick=600)
"""Nothing happens in the background by itself: the test does it."""


def row_of(database: TestDatabase, name: str) -> Schedule:
    """The schedule as it is stored now."""
    with reading(database) as session:
        return session.scalars(select(Schedule).where(Schedule.name == name)).one()


def change_row(database: TestDatabase, name: str, **values: object) -> None:
    """Change the row of a schedule behind everybody's back."""
    with Session(database.make_engine()) as session, session.begin():
        session.execute(update(Schedule).where(Schedule.name == name).values(**values))


def runs_of(database: TestDatabase, name: str) -> list[str]:
    """The IDs of all runs of a schedule, in their order."""
    with reading(database) as session:
        found = select(WorkflowStatus.workflow_id).where(WorkflowStatus.schedule == name)
        return sorted(session.scalars(found))


def look_once(dbos: DBOS | AsyncDBOS) -> None:
    """Do what a process does that looks at the schedules for the first time, until nothing more is due."""
    service = CronService(dbos._runtime.bound("a test"))
    while service.run_once() == 0.0:
        pass


def days_ago(number: int) -> datetime:
    """A slot of ``DAILY``: the last one was half a day ago."""
    return _LAST - timedelta(days=number)


def slot_id(name: str, slot: datetime, application: str = "shop") -> str:
    """The ID that the run of a slot has."""
    return f"sched-{application}-{name}-{slot.astimezone(UTC).isoformat()}"
