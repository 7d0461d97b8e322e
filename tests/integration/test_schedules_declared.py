"""What code says of its schedules: it is in the database after a launch, and what cannot work is refused."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy import select

from dbos_orm import DBOS
from dbos_orm.errors import ConfigurationError, ConflictingRegistrationError, NotRegisteredError, QueueNotFoundError
from dbos_orm.models import Schedule
from tests.databases import TestDatabase
from tests.integration.schedules import DAILY, RARELY, STILL, change_row, days_ago, look_once, row_of, runs_of, slot_id
from tests.integration.shop import reading
from tests.processes import PATIENCE


def declared(database: TestDatabase, expression: Any, **options: Any) -> DBOS:
    """An application whose code says this of its one schedule."""
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)

    @dbos.scheduled(expression, name="report", **options)
    @dbos.workflow(name="report")
    def report(scheduled_at: datetime, actual_at: datetime) -> None: ...

    return dbos


def test_a_launch_stores_what_code_declares(database: TestDatabase) -> None:
    before = datetime.now(UTC)
    with declared(database, "0 9 * * MON-FRI", timezone="Europe/Berlin", catch_up="all").launch():
        row = row_of(database, "report")

    assert (row.workflow_name, row.expression, row.trigger) == ("report", "0 9 * * MON-FRI", None)
    assert (row.timezone, row.catch_up, row.declared, row.paused) == ("Europe/Berlin", "all", True, False)
    assert row.next_fire_at is not None
    assert before < row.next_fire_at < before + timedelta(days=4)


def test_another_launch_takes_over_what_has_changed_and_leaves_the_rest(database: TestDatabase) -> None:
    with declared(database, "0 9 * * *").launch() as dbos:
        dbos.schedules.pause("report")
    change_row(database, "report", next_fire_at=days_ago(5))
    with declared(database, "0 9 * * *").launch():
        assert row_of(database, "report").next_fire_at == days_ago(5)
    with declared(database, RARELY, catch_up="none").launch():
        row = row_of(database, "report")

    assert (row.expression, row.catch_up, row.paused) == (RARELY, "none", True)
    assert row.next_fire_at == datetime(datetime.now(UTC).year + 1, 1, 1, tzinfo=UTC)


def test_a_schedule_whose_code_is_gone_is_kept_and_reported_and_not_run(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    with declared(database, DAILY).launch():
        pass
    change_row(database, "report", next_fire_at=days_ago(0))
    later = DBOS(database.make_engine(), name="shop", config=STILL)

    @later.workflow(name="report")
    def report(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with caplog.at_level(logging.WARNING, "dbos_orm"), later.launch():
        look_once(later)

    assert "schedules ['report'] were declared by code that is not here" in caplog.text
    assert runs_of(database, "report") == []
    assert row_of(database, "report").next_fire_at == days_ago(0)


class EveryDay(BaseTrigger):
    """A trigger that has no text of its own."""

    def get_next_fire_time(self, previous_fire_time: Any, now: datetime) -> datetime:
        return days_ago(0) - (days_ago(0) - now) // timedelta(days=1) * timedelta(days=1)


def test_a_trigger_is_gone_on_with_by_processes_that_declare_the_same_one(database: TestDatabase) -> None:
    with declared(database, EveryDay()).launch():
        row = row_of(database, "report")
        assert (row.expression, row.trigger) == (None, f"{__name__}.EveryDay")
    change_row(database, "report", next_fire_at=days_ago(0))
    change_row(database, "report", trigger="another one")
    same = declared(database, EveryDay())
    same.bind(database.make_engine())
    look_once(same)
    assert runs_of(database, "report") == []

    change_row(database, "report", trigger=f"{__name__}.EveryDay")
    look_once(same)
    assert runs_of(database, "report") == [slot_id("report", days_ago(0))]
    assert row_of(database, "report").next_fire_at == days_ago(-1)


def test_a_trigger_that_has_ended_stands_at_no_slot(database: TestDatabase) -> None:
    ended = IntervalTrigger(hours=1, start_date="2020-01-01 00:00:00", end_date="2020-01-02 00:00:00", timezone="UTC")
    with declared(database, ended).launch() as dbos:
        look_once(dbos)

        assert row_of(database, "report").next_fire_at is None
        assert runs_of(database, "report") == []


def test_one_bad_row_does_not_hold_up_the_others(database: TestDatabase, caplog: pytest.LogCaptureFixture) -> None:
    dbos = declared(database, DAILY)

    @dbos.workflow(name="other")
    def other(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        dbos.schedules.create("bad", other, DAILY)
        change_row(database, "bad", next_fire_at=days_ago(1), expression="every now and then")
        change_row(database, "report", next_fire_at=days_ago(0))
        look_once(dbos)

    assert runs_of(database, "report") == [slot_id("report", days_ago(0))]
    assert "schedule 'bad' stays where it is" in caplog.text
    assert row_of(database, "bad").next_fire_at == days_ago(1)


def test_a_slot_whose_id_belongs_to_another_workflow_is_reported(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    dbos = declared(database, DAILY)

    @dbos.workflow(name="other")
    def other() -> None: ...

    with dbos.launch():
        other.options(workflow_id=slot_id("report", days_ago(0))).start()
        change_row(database, "report", next_fire_at=days_ago(0))
        look_once(dbos)

    assert "belongs to workflow 'other'" in caplog.text


def test_a_schedule_is_due_from_its_slot_on(database: TestDatabase) -> None:
    with declared(database, RARELY).launch() as dbos:
        due = select(Schedule.is_due)
        for next_fire_at, expected in ((days_ago(0), True), (days_ago(-2), False), (None, False)):
            change_row(database, "report", next_fire_at=next_fire_at)
            with reading(database) as session:
                assert session.scalars(due).one() is expected
            assert row_of(database, "report").is_due is expected
        change_row(database, "report", next_fire_at=days_ago(0))
        dbos.schedules.pause("report")
        assert row_of(database, "report").is_due is False


# -- refused -------------------------------------------------------------------------------------


def test_a_workflow_that_takes_something_else_is_refused_when_it_is_decorated() -> None:
    def schedule(function: Any) -> None:
        dbos = DBOS(name="shop")
        dbos.scheduled(RARELY)(dbos.workflow(function))

    for function in (
        lambda: None,
        lambda scheduled_at: None,
        lambda scheduled_at, actual_at, context: None,
        lambda scheduled_at, actual_at, *, more: None,
    ):
        with pytest.raises(ConfigurationError, match="scheduled_at, actual_at"):
            schedule(function)
    schedule(lambda scheduled_at, actual_at, context=None: None)


def test_what_cannot_be_scheduled_is_refused_with_advice() -> None:
    dbos, other = DBOS(name="shop"), DBOS(name="other")

    class Shop:
        @dbos.workflow
        def report(self, scheduled_at: datetime, actual_at: datetime) -> None: ...

    def function(scheduled_at: datetime, actual_at: datetime) -> None: ...

    decorate: Any = dbos.scheduled(RARELY)
    with pytest.raises(ConfigurationError, match=r"above @dbos\.workflow"):
        decorate(function)
    with pytest.raises(ConfigurationError, match=r"dbos\.schedules\.create"):
        decorate(Shop.report)
    with pytest.raises(NotRegisteredError):
        decorate(other.workflow(function))
    with pytest.raises(ConfigurationError, match="without options"):
        decorate(dbos.workflow(function).options(timeout=5))


def test_two_schedules_of_one_workflow_need_two_names() -> None:
    dbos = DBOS(name="shop")

    @dbos.workflow(name="report")
    def report(scheduled_at: datetime, actual_at: datetime) -> None: ...

    dbos.scheduled("0 9 * * *")(report)
    dbos.scheduled("0 18 * * *", name="evening")(report)
    with pytest.raises(ConflictingRegistrationError, match="0 18"):
        dbos.scheduled("0 18 * * *")(report)


def test_a_launch_refuses_a_schedule_whose_queue_cannot_take_it(database: TestDatabase) -> None:
    dbos = declared(database, RARELY, queue="nights")
    with pytest.raises(QueueNotFoundError) as refusal:
        dbos.launch()
    assert refusal.value.queue == "nights"
    dbos.queue("nights", partitioned=True)
    dbos.bind(database.make_engine())
    with pytest.raises(ConfigurationError, match="without partitions"):
        dbos.launch()


def test_inline_a_schedule_has_no_clock_and_can_be_triggered(sqlite_database: TestDatabase) -> None:
    with (
        sqlite_database.make_engine().connect() as connection,
        DBOS(name="shop").launch(connection, inline=True) as dbos,
    ):
        came: list[datetime] = []

        @dbos.workflow(name="report")
        def report(scheduled_at: datetime, actual_at: datetime) -> None:
            came.append(scheduled_at)

        dbos.schedules.create("every-second", report, "* * * * * *")
        handle = dbos.schedules.trigger("every-second")
        assert dbos.drain() == 1
        assert len(came) == 1
        handle.result(timeout=PATIENCE)
