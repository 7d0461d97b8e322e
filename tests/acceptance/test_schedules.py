"""Schedules over several real processes: each slot is run once, whoever dies on the way."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dbos_orm.models import Schedule, WorkflowStatus
from tests.acceptance.clockwork import application
from tests.databases import TestDatabase
from tests.processes import ChildProcess, Processes, eventually

EVERY_SECOND = "* * * * * *"
YEARLY = "0 0 1 1 *"
PROCESSES = 4


def start(processes: Processes, database: TestDatabase, *arguments: str) -> ChildProcess:
    url = database.url.render_as_string(hide_password=False)
    return processes.start_module("tests.acceptance.clockwork", url, *arguments)


def runs(database: TestDatabase) -> dict[str, str]:
    """The status of each run of the schedule, by its ID."""
    with Session(database.onlooker) as session:
        columns = select(WorkflowStatus.workflow_id, WorkflowStatus.status).where(WorkflowStatus.schedule == "tick")
        return {row.workflow_id: row.status for row in session.execute(columns)}


def wait_for_more_runs(database: TestDatabase) -> None:
    before = len(runs(database))
    eventually(lambda: len(runs(database)) >= before + 3)


def slots_of(found: dict[str, str]) -> list[datetime]:
    return sorted(datetime.fromisoformat(workflow_id.removeprefix("sched-shop-tick-")) for workflow_id in found)


def test_four_processes_run_each_slot_once_though_two_of_them_are_killed(
    processes: Processes, database: TestDatabase
) -> None:
    children = [start(processes, database, EVERY_SECOND) for _ in range(PROCESSES)]
    for child in children:
        child.wait_for_line("ready")
    for victim in children[:2]:
        wait_for_more_runs(database)
        victim.kill()
    wait_for_more_runs(database)
    for child in children[2:]:
        child.kill()
    with application(database.url.render_as_string(hide_password=False), EVERY_SECOND):
        eventually(lambda: set(runs(database).values()) == {"SUCCESS"})

    slots = slots_of(runs(database))
    first = slots[0]
    assert slots == [first + timedelta(seconds=number) for number in range(len(slots))], "a slot was left out"
    ran = Counter(line.removeprefix("ran ") for child in children for line in child.lines if line.startswith("ran "))
    # A run that a killed process was in is run again by another one: nothing else is run twice.
    assert sum(count - 1 for count in ran.values()) <= len(children)
    assert set(ran) <= {slot.isoformat() for slot in slots}


@pytest.mark.parametrize("moment", ["before", "after", "committed"])
def test_a_process_killed_at_the_insert_leaves_the_slot_to_another_one(
    processes: Processes, database: TestDatabase, moment: str
) -> None:
    slot = datetime(datetime.now(UTC).year, 1, 1, tzinfo=UTC)
    declaring = start(processes, database, YEARLY)
    declaring.wait_for_line("ready")
    declaring.kill()
    with Session(database.make_engine()) as session, session.begin():
        session.execute(update(Schedule).values(next_fire_at=slot))

    dying = start(processes, database, YEARLY, moment)
    assert dying.wait() == -9
    assert len(runs(database)) == (1 if moment == "committed" else 0)
    living = start(processes, database, YEARLY)
    eventually(lambda: set(runs(database).values()) == {"SUCCESS"})

    assert slots_of(runs(database)) == [slot]
    assert [line for line in living.lines if line.startswith("ran")] == [f"ran {slot.isoformat()}"]
    with Session(database.make_engine()) as session:
        assert session.scalars(select(Schedule.next_fire_at)).one() == slot.replace(year=slot.year + 1)
