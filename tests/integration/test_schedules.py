"""Schedules that code declares: each slot becomes one run, and missed ones what the schedule says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from sqlalchemy import select

from dbos_orm import DBOS, AsyncDBOS
from dbos_orm._services.scheduler import CronService
from dbos_orm.models import Schedule, WorkflowStatus
from tests.databases import TestDatabase
from tests.integration.schedules import DAILY, RARELY, STILL, change_row, days_ago, look_once, row_of, runs_of, slot_id
from tests.integration.shop import reading
from tests.processes import eventually, eventually_async


def test_a_slot_is_run_when_it_is_due(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop")
    came: list[tuple[datetime, datetime]] = []

    @dbos.scheduled("* * * * * *", name="tick")
    @dbos.workflow
    def note(scheduled_at: datetime, actual_at: datetime) -> None:
        came.append((scheduled_at, actual_at))

    with dbos.launch():
        eventually(lambda: len(came) >= 3)

    slots = sorted(slot for slot, _ in came)
    assert [slot - slots[0] for slot in slots] == [timedelta(seconds=number) for number in range(len(slots))]
    for slot, actual in came:
        assert slot.utcoffset() == actual.utcoffset() == timedelta(0)
        assert timedelta(0) <= actual - slot < timedelta(seconds=5)
    assert set(runs_of(database, "tick")) >= {slot_id("tick", slot) for slot in slots}


async def test_a_coroutine_is_run_when_it_is_due(database: TestDatabase) -> None:
    dbos = AsyncDBOS(database.make_async_engine(), name="shop")
    came: list[datetime] = []

    @dbos.scheduled("* * * * * *")
    @dbos.workflow(name="note")
    async def note(scheduled_at: datetime, actual_at: datetime) -> None:
        came.append(scheduled_at)

    async with dbos:
        await eventually_async(lambda: len(came) >= 2)

    assert set(runs_of(database, "note")) >= {slot_id("note", slot) for slot in came}


CatchUp = Literal["none", "last", "all"]


@pytest.mark.parametrize(("catch_up", "expected"), [("none", []), ("last", [0]), ("all", [3, 2, 1, 0])])
def test_what_was_missed_is_caught_up_as_the_schedule_says(
    database: TestDatabase, catch_up: CatchUp, expected: list[int]
) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)

    @dbos.scheduled(DAILY, name="daily", catch_up=catch_up)
    @dbos.workflow
    def note(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        assert row_of(database, "daily").next_fire_at == days_ago(-1)
        change_row(database, "daily", next_fire_at=days_ago(3))
        look_once(dbos)

        assert runs_of(database, "daily") == [slot_id("daily", days_ago(number)) for number in expected]
        row = row_of(database, "daily")
        assert row.next_fire_at == days_ago(-1)
        assert row.last_fire_at == (days_ago(0) if expected else None)


def test_a_long_absence_is_caught_up_in_batches(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)

    @dbos.scheduled(DAILY, name="daily", catch_up="all")
    @dbos.workflow
    def note(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        change_row(database, "daily", next_fire_at=days_ago(250))
        look_once(dbos)

        assert len(runs_of(database, "daily")) == 251


def test_the_newest_slot_of_a_year_without_anybody_is_found_at_once(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)

    @dbos.scheduled("*/10 * * * * *", name="often")
    @dbos.workflow
    def note(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        change_row(database, "often", next_fire_at=datetime.now(UTC).replace(microsecond=0) - timedelta(days=365))
        look_once(dbos)

        assert 1 <= len(runs_of(database, "often")) <= 3


def test_two_processes_that_look_at_once_start_one_run(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)

    @dbos.scheduled(DAILY, name="daily")
    @dbos.workflow
    def note(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        change_row(database, "daily", next_fire_at=days_ago(0))
        binding = dbos._runtime.bound("a test")
        first, second = CronService(binding), CronService(binding)
        first.run_once()
        second._start_due(["daily"])  # What it saw before the first one was done.

        assert runs_of(database, "daily") == [slot_id("daily", days_ago(0))]


def test_the_row_that_another_process_holds_is_left_to_it(postgresql_database: TestDatabase) -> None:
    database = postgresql_database
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)

    @dbos.scheduled(DAILY, name="daily")
    @dbos.workflow
    def note(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        change_row(database, "daily", next_fire_at=days_ago(0))
        with database.make_engine().begin() as other:
            other.execute(select(Schedule.name).with_for_update())
            assert CronService(dbos._runtime.bound("a test")).run_once() > 0
            assert runs_of(database, "daily") == []
        look_once(dbos)
        assert runs_of(database, "daily") == [slot_id("daily", days_ago(0))]


def test_a_run_waits_in_the_queue_of_its_schedule_or_of_its_workflow(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)
    reports, nights = dbos.queue("reports"), dbos.queue("nights")

    @dbos.scheduled(DAILY, name="own", queue=nights)
    @dbos.scheduled(DAILY, name="inherited")
    @dbos.workflow(queue=reports)
    def note(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        for name in ("own", "inherited"):
            change_row(database, name, next_fire_at=days_ago(0))
        look_once(dbos)

    with reading(database) as session:
        found = session.execute(select(WorkflowStatus.schedule, WorkflowStatus.queue)).all()
    assert {(row.schedule, row.queue) for row in found} == {("own", "nights"), ("inherited", "reports")}


def test_the_next_slot_is_told_exactly_and_nothing_is_asked_until_then(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)

    @dbos.scheduled(RARELY, name="rare")
    @dbos.workflow
    def note(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        service = CronService(dbos._runtime.bound("a test"))
        assert service.run_once() == pytest.approx(600)  # the tick
        service.heard(1e6)
        assert service.run_once() == pytest.approx(60)
        change_row(database, "rare", next_fire_at=datetime.now(UTC) + timedelta(seconds=20))
        assert 19 < service.run_once() <= 20
        assert not service._wake.is_set()
        service.heard(5.0)
        assert service._wake.is_set()


def test_what_only_others_can_run_is_looked_at_now_and_then(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)

    @dbos.workflow(name="note")
    def note(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        dbos.schedules.create("daily", note, DAILY)
        change_row(database, "daily", next_fire_at=days_ago(0), workflow_name="of others")
        service = CronService(dbos._runtime.bound("a test"))
        service.heard(-1.0)
        service._wake.clear()
        assert service.run_once() == pytest.approx(60)
        service.heard(-1.0)
        assert not service._wake.is_set()
        service._last_look -= 6
        service.heard(-1.0)
        assert service._wake.is_set()
