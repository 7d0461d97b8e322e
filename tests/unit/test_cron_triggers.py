"""Triggers of APScheduler as the clock of a schedule."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given
from hypothesis import strategies as some

from dbos_orm._services.cron import timetable
from dbos_orm.errors import ConfigurationError
from tests.slots import instant, slots


class LeapDays(BaseTrigger):
    """A trigger as a user may write one."""

    def get_next_fire_time(self, previous_fire_time: Any, now: Any) -> Any:
        found = datetime(now.year, 2, 1, tzinfo=UTC)
        while found < now or found.year % 4:
            found = found.replace(year=found.year + 1)
        return found


def test_any_trigger_gives_its_slots() -> None:
    nine = CronTrigger(hour=9, timezone="UTC")
    noon_of_workdays = CronTrigger(day_of_week="mon-fri", hour=12, timezone="UTC")
    begin, end = "2026-11-20T10:00Z", "2026-11-23T23:00Z"

    def of(trigger: Any) -> list[str]:
        return slots(timetable(trigger).after, begin, end)

    assert of(nine) == ["11-21 09:00", "11-22 09:00", "11-23 09:00"]
    assert of(OrTrigger([nine, noon_of_workdays])) == [
        "11-20 12:00", "11-21 09:00", "11-22 09:00", "11-23 09:00", "11-23 12:00",
    ]  # fmt: skip
    monday = CronTrigger(day_of_week="mon", hour="8-10", timezone="UTC")
    assert of(AndTrigger([nine, monday])) == ["11-23 09:00"]
    assert of(DateTrigger("2026-11-21 08:00:00", "UTC")) == ["11-21 08:00"]
    assert of(DateTrigger("2026-11-19 08:00:00", "UTC")) == []
    every = IntervalTrigger(hours=30, start_date="2026-11-01 00:00:00", timezone="UTC")
    assert of(every) == ["11-21 00:00", "11-22 06:00", "11-23 12:00"]
    other_days = CalendarIntervalTrigger(days=2, hour=7, start_date="2026-01-01", timezone="UTC")
    assert of(other_days) == ["11-21 07:00", "11-23 07:00"]
    assert slots(timetable(LeapDays()).after, begin, "2034-01-01T00:00Z") == ["02-01 00:00", "02-01 00:00"]


def test_a_trigger_keeps_its_bounds() -> None:
    cron = CronTrigger(hour=9, start_date="2026-11-22", end_date="2026-11-23 12:00:00", timezone="UTC")
    every = IntervalTrigger(days=1, start_date="2026-11-22", end_date="2026-11-23 12:00:00", timezone="UTC")

    assert slots(timetable(cron).after, "2026-11-01T00:00Z", "2026-12-01T00:00Z") == ["11-22 09:00", "11-23 09:00"]
    assert slots(timetable(every).after, "2026-11-01T00:00Z", "2026-12-01T00:00Z") == ["11-22 00:00", "11-23 00:00"]


def test_the_fields_of_a_cron_trigger_are_kept_as_they_are() -> None:
    trigger = CronTrigger(day="last", hour=18, minute="*/30", timezone="UTC")

    assert slots(timetable(trigger).after, "2026-11-01T00:00Z", "2026-12-31T18:15Z") == [
        "11-30 18:00", "11-30 18:30", "12-31 18:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "trigger",
    [
        CronTrigger(hour=2, minute=30, timezone="Europe/Berlin"),
        CalendarIntervalTrigger(days=1, hour=2, minute=30, start_date="2026-01-01", timezone="Europe/Berlin"),
        OrTrigger([CronTrigger(hour=2, minute=30, timezone="Europe/Berlin")]),
    ],
    ids=str,
)
def test_a_trigger_has_the_rules_of_cron_text_where_the_clock_changes(trigger: Any) -> None:
    after = timetable(trigger).after

    assert slots(after, "2026-03-28T12:00Z", "2026-03-30T12:00Z") == ["03-29 01:00", "03-30 00:30"]
    assert slots(after, "2026-10-24T12:00Z", "2026-10-26T12:00Z") == ["10-25 00:30", "10-26 01:30"]


@given(
    length=some.integers(1, 10**7),
    begin=some.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1), timezones=some.just(UTC)),  # noqa: DTZ001
)
def test_an_interval_never_meets_a_slot_twice(length: int, begin: datetime) -> None:
    start = datetime(2000, 1, 1, tzinfo=UTC)
    after = timetable(IntervalTrigger(seconds=length, start_date=start)).after

    first = after(begin)
    assert first is not None
    assert after(first) == first + timedelta(seconds=length)
    assert (first - start) % timedelta(seconds=length) == timedelta(0)


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (CronTrigger(hour=9, jitter=30, timezone="UTC"), "jitter"),
        (OrTrigger([CronTrigger(hour=9, jitter=30, timezone="UTC")]), "jitter"),
        (IntervalTrigger(minutes=5), "start_date"),
        (AndTrigger([IntervalTrigger(minutes=5)]), "start_date"),
        (DateTrigger(), "run_date"),
        (5, "cron text, or a trigger"),
        (object(), "cron text, or a trigger"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_trigger_that_differs_between_processes_is_refused_with_advice(trigger: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        timetable(trigger)


def test_a_zone_beside_a_trigger_of_another_zone_is_refused() -> None:
    trigger = CronTrigger(hour=9, timezone="Europe/Berlin")

    assert timetable(trigger).timezone == "Europe/Berlin"
    assert timetable(trigger, "Europe/Berlin").timezone == "Europe/Berlin"
    with pytest.raises(ConfigurationError, match=re.escape("that of the trigger, Europe/Berlin")):
        timetable(trigger, "UTC")


def test_a_trigger_is_described_in_the_same_words_by_every_process() -> None:
    first, again = timetable(LeapDays()), timetable(LeapDays())

    assert first.trigger == again.trigger == f"{__name__}.LeapDays"
    assert first.expression is None
    described = timetable(CronTrigger(hour=9, timezone="UTC")).trigger
    assert described is not None
    assert "hour='9'" in described


def test_a_trigger_that_gives_naive_datetimes_is_refused() -> None:
    class Naive(BaseTrigger):
        def get_next_fire_time(self, previous_fire_time: Any, now: Any) -> Any:
            return now.replace(tzinfo=None)

    with pytest.raises(ConfigurationError, match="aware datetimes"):
        timetable(Naive()).after(instant("2026-11-22T00:00Z"))


def test_parts_that_never_meet_are_an_error_and_no_endless_search() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    even = IntervalTrigger(hours=2, start_date=start)
    odd = IntervalTrigger(hours=2, start_date=start + timedelta(hours=1))

    with pytest.raises(ConfigurationError, match="meet"):
        timetable(AndTrigger([even, odd])).after(start)
