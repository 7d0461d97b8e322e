"""The clock of schedules: what cron text means, and what happens where clocks change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dbos_orm._services.cron import timetable, zone_of
from dbos_orm._services.cron_text import parse
from dbos_orm.errors import ConfigurationError
from tests.slots import instant, slots

MINUTE = timedelta(minutes=1)


# -- text ----------------------------------------------------------------------------------------

SUN, MON, TUE, WED, THU, FRI, SAT = range(7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", {SUN}),
        ("7", {SUN}),
        ("1-5", {MON, TUE, WED, THU, FRI}),
        ("5-7", {FRI, SAT, SUN}),
        ("0-7", set(range(7))),
        ("*/2", {SUN, TUE, THU, SAT}),
        ("0-6/2", {SUN, TUE, THU, SAT}),
        ("1-7/2", {MON, WED, FRI, SUN}),
        ("0,6", {SUN, SAT}),
        ("MON-FRI", {MON, TUE, WED, THU, FRI}),
        ("fri-sun", {FRI, SAT, SUN}),
        ("Sun-Tue", {SUN, MON, TUE}),
        ("sat,SUN", {SAT, SUN}),
        ("3/2", {WED, FRI}),
    ],
)
def test_weekdays_are_numbered_as_cron_numbers_them(text: str, expected: set[int]) -> None:
    assert parse(f"0 0 * * {text}").weekdays == expected
    after = timetable(f"0 0 * * {text}").after
    fired = slots(after, "2026-11-21T00:00:01+00:00", "2026-11-28T00:00:00+00:00")
    week = [date(2026, 11, 22) + timedelta(days=number) for number in range(7)]  # from Sunday

    assert fired == [day.strftime("%m-%d 00:00") for number, day in enumerate(week) if number in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/20 9 * * *", ["11-23 09:00", "11-23 09:20", "11-23 09:40"]),
        ("5/25 9 * * *", ["11-23 09:05", "11-23 09:30", "11-23 09:55"]),
        ("0 8-10 * * *", ["11-23 08:00", "11-23 09:00", "11-23 10:00"]),
        ("0 9 23 nov *", ["11-23 09:00"]),
        ("0 9 * NOV,DEC *", ["11-23 09:00"]),
        ("30 0 9 * * *", ["11-23 09:00"]),
        ("@daily", ["11-23 00:00"]),
        ("@midnight", ["11-23 00:00"]),
        ("  0   9  *\t* *  ", ["11-23 09:00"]),
    ],
)
def test_cron_text_means_what_it_says(text: str, expected: list[str]) -> None:
    assert slots(timetable(text).after, "2026-11-22T23:59:59+00:00", "2026-11-23T23:59:59+00:00") == expected


def test_six_fields_begin_with_the_seconds() -> None:
    after = timetable("*/30 0 9 * * *").after

    assert after(instant("2026-11-23T09:00:00+00:00")) == instant("2026-11-23T09:00:30+00:00")
    assert after(instant("2026-11-23T09:00:30+00:00")) == instant("2026-11-24T09:00:00+00:00")


def test_a_day_fits_either_of_two_fields_that_restrict_it() -> None:
    either = timetable("0 0 13 * FRI").after
    starred = timetable("0 0 */2 * FRI").after

    assert slots(either, "2026-11-12T12:00+00:00", "2026-12-01T00:00+00:00") == [
        "11-13 00:00", "11-20 00:00", "11-27 00:00",
    ]  # fmt: skip
    assert slots(either, "2026-12-10T00:00+00:00", "2026-12-14T00:00+00:00") == ["12-11 00:00", "12-13 00:00"]
    assert slots(starred, "2026-11-12T12:00+00:00", "2026-12-01T00:00+00:00") == ["11-13 00:00", "11-27 00:00"]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("61 * * * *", "minute", "61"),
        ("* 24 * * *", "hour", "24"),
        ("* * 0 * *", "day of month", "0"),
        ("* * * 13 *", "month", "13"),
        ("* * * FOO *", "month", "FOO"),
        ("* * * * 8", "day of week", "8"),
        ("* * * * MON-FUN", "day of week", "MON-FUN"),
        ("* * * * 5-1", "day of week", "5-1"),
        ("*/0 * * * *", "minute", "*/0"),
        ("*/90 * * * *", "minute", "*/90"),
        ("1,,2 * * * *", "minute", "1,,2"),
        ("-1 * * * *", "minute", "-1"),
        ("60 * * * * *", "second", "60"),
        ("1.5 * * * *", "minute", "1.5"),
        ("² * * * *", "minute", "²"),
    ],
)
def test_bad_cron_text_is_refused_with_its_field(text: str, field: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        timetable(text)

    assert refusal.value.field == f"{field} of {text!r}"
    assert refusal.value.value == value
    assert " to " in refusal.value.expected


@pytest.mark.parametrize("text", ["", "* * * *", "* * * * * * *", "@often", "@daily 5", "0 0 30 2 *", "0 0 31 4,6 *"])
def test_text_that_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^expression is|of '@daily 5'"):
        timetable(text)


# -- changes of the clock ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "begin", "end", "expected"),
    [
        # Berlin, 25 October 2026: 03:00 summer time is 02:00 winter time.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", "2026-10-26T12:00Z", ["10-25 00:30", "10-26 01:30"]),
        ("30 * * * *", "Europe/Berlin", "2026-10-24T23:00Z", "2026-10-25T03:00Z",
         ["10-24 23:30", "10-25 00:30", "10-25 01:30", "10-25 02:30"]),
        ("0 */2 * * *", "Europe/Berlin", "2026-10-24T21:00Z", "2026-10-25T03:30Z",
         ["10-24 22:00", "10-25 00:00", "10-25 01:00", "10-25 03:00"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-10-24T23:00Z", "2026-10-25T04:00Z", ["10-25 00:00", "10-25 02:00"]),
        # 29 March 2026: 02:00 is 03:00.
        ("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00Z", "2026-03-30T12:00Z",
         ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        ("*/10 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T12:00Z", ["03-29 01:00"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T12:00Z", ["03-29 01:00"]),
        ("0 * * * *", "Europe/Berlin", "2026-03-28T23:30Z", "2026-03-29T02:30Z",
         ["03-29 00:00", "03-29 01:00", "03-29 02:00"]),
        # New York, 8 March and 1 November 2026.
        ("30 2 * * *", "America/New_York", "2026-03-08T00:00Z", "2026-03-09T12:00Z", ["03-08 07:00", "03-09 06:30"]),
        ("30 1 * * *", "America/New_York", "2026-11-01T00:00Z", "2026-11-02T12:00Z", ["11-01 05:30", "11-02 06:30"]),
        ("30 * * * *", "America/New_York", "2026-11-01T04:00Z", "2026-11-01T07:00Z",
         ["11-01 04:30", "11-01 05:30", "11-01 06:30"]),
        # Lord Howe moves by half an hour: 4 October 2026 02:00 is 02:30; 5 April 02:00 is 01:30.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T20:00Z", "2026-10-05T00:00Z",
         ["10-03 15:30", "10-04 15:15"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-03T20:00Z", "2026-04-06T00:00Z",
         ["04-04 14:45", "04-05 15:15"]),
        ("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00Z", "2026-04-04T16:30Z",
         ["04-04 14:45", "04-04 15:15", "04-04 16:15"]),
        # Santiago, 6 September 2026: midnight is 01:00.
        ("0 0 * * *", "America/Santiago", "2026-09-05T00:00Z", "2026-09-07T12:00Z",
         ["09-05 04:00", "09-06 04:00", "09-07 03:00"]),
        ("@daily", "Asia/Beirut", "2026-03-28T00:00Z", "2026-03-30T00:00Z", ["03-28 22:00", "03-29 21:00"]),
        # A zone may change for good: Apia left 30 December 2011 out, Caracas moved by half an hour in 2016.
        ("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00Z", "2012-01-01T00:00Z",
         ["12-29 22:00", "12-30 10:00", "12-30 22:00", "12-31 22:00"]),
        ("45 2 * * *", "America/Caracas", "2016-04-30T00:00Z", "2016-05-02T12:00Z",
         ["04-30 07:15", "05-01 07:00", "05-02 06:45"]),
    ],
)  # fmt: skip
def test_a_clock_that_changes_neither_loses_nor_doubles_a_fixed_hour(
    text: str, zone: str, begin: str, end: str, expected: list[str]
) -> None:
    assert slots(timetable(text, zone).after, begin, end) == expected


def test_every_second_of_an_hour_that_comes_twice_is_a_slot_once() -> None:
    after = timetable("* * 2 * * *", "Europe/Berlin").after
    last_of_the_first = instant("2026-10-25T00:59:59Z")

    assert after(last_of_the_first - timedelta(seconds=1)) == last_of_the_first
    assert after(last_of_the_first) == instant("2026-10-26T01:00:00Z")


def test_the_end_of_a_gap_is_a_slot_also_for_who_asks_just_before_it() -> None:
    after = timetable("30 2 * * *", "Europe/Berlin").after
    end_of_gap = instant("2026-03-29T01:00:00Z")

    assert after(end_of_gap - timedelta(microseconds=1)) == end_of_gap
    assert after(end_of_gap) == instant("2026-03-30T00:30:00Z")


ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Beirut",
    "Africa/Casablanca", "Asia/Kolkata", "Pacific/Chatham", "America/Caracas", "Asia/Pyongyang", "Pacific/Apia",
]  # fmt: skip


def part(lowest: int, highest: int) -> some.SearchStrategy[str]:
    number = some.integers(lowest, highest)
    return some.one_of(
        some.just("*"),
        number.map(str),
        some.integers(1, min(highest, 6)).map("*/{}".format),
        some.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        some.lists(number, min_size=1, max_size=3).map(lambda numbers: ",".join(map(str, numbers))),
    )


cron_texts = some.tuples(part(0, 59), part(0, 23), part(1, 28), part(1, 12), part(0, 7)).map(" ".join)
instants = some.datetimes(datetime(2005, 1, 1), datetime(2030, 1, 1), timezones=some.just(UTC))  # noqa: DTZ001
changes = some.sampled_from(
    [
        ("Europe/Berlin", "2026-10-25T01:00Z"),
        ("Europe/Berlin", "2026-03-29T01:00Z"),
        ("America/New_York", "2026-11-01T06:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
        ("America/Santiago", "2026-09-06T04:00Z"),
        ("Asia/Beirut", "2026-03-28T22:00Z"),
        ("Asia/Pyongyang", "2015-08-14T15:00Z"),
        ("Pacific/Apia", "2011-12-30T10:00Z"),
    ]
)


def meant(text: str) -> Callable[[datetime], bool]:
    """Whether a local minute is one that the text means, by the plain reading of its fields."""
    fields = parse(text)

    def is_meant(local: datetime) -> bool:
        by_day, by_weekday = local.day in fields.days, local.isoweekday() % 7 in fields.weekdays
        return (
            local.minute in fields.minutes
            and local.hour in fields.hours
            and local.month in fields.months
            and ((by_day or by_weekday) if fields.either_day else (by_day and by_weekday))
        )

    return is_meant


def minute_by_minute(text: str, zone: tzinfo, begin: datetime, end: datetime) -> list[datetime]:
    """The slots, found by looking at every minute."""
    is_meant, repeats = meant(text), parse(text).repeats
    found, moment = [], begin
    while moment < end:
        before, local = moment.astimezone(zone), (moment + MINUTE).astimezone(zone)
        left_out = []
        wall = before.replace(tzinfo=None, fold=0) + MINUTE
        while wall < local.replace(tzinfo=None, fold=0):
            left_out.append(wall)
            wall += MINUTE
        moment += MINUTE
        if any(map(is_meant, left_out)) or (is_meant(local) and (repeats or not local.fold)):
            found.append(moment)
    return found


@given(text=cron_texts, change=changes)
def test_around_a_change_the_slots_are_those_that_one_finds_minute_by_minute(
    text: str, change: tuple[str, str]
) -> None:
    zone, at = change
    begin, end = instant(at) - timedelta(hours=5), instant(at) + timedelta(hours=5)
    after, found = timetable(text, zone).after, []
    slot = after(begin)
    while slot is not None and slot <= end:
        found.append(slot)
        slot = after(slot)

    assert found == minute_by_minute(text, ZoneInfo(zone), begin, end)


@given(text=cron_texts, zone=some.sampled_from(ZONES), begin=instants)
def test_slots_increase_and_each_fits_the_fields_or_ends_a_gap(text: str, zone: str, begin: datetime) -> None:
    after, is_meant = timetable(text, zone).after, meant(text)
    before = begin
    for _ in range(5):
        slot = after(before)
        assert slot is not None
        assert slot > before
        local, just_before = slot.astimezone(ZoneInfo(zone)), (slot - MINUTE).astimezone(ZoneInfo(zone))
        ends_gap = (local.utcoffset() or timedelta(0)) > (just_before.utcoffset() or timedelta(0))
        assert is_meant(local) or ends_gap
        before = slot


@given(text=cron_texts, zone=some.sampled_from(ZONES), begin=instants, share=some.floats(0, 1))
def test_no_slot_lies_between_two_neighbours(text: str, zone: str, begin: datetime, share: float) -> None:
    after = timetable(text, zone).after
    slot = after(begin)
    assert slot is not None

    between = begin + (slot - begin) * share
    assert after(min(between, slot - timedelta(microseconds=1))) == slot


# -- time zones ----------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "europe/../etc", "/etc/passwd", "UTC+99:00", 7, "CEST\x00"])
def test_an_unknown_zone_is_refused_by_its_name(zone: Any) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        timetable("0 9 * * *", zone)

    assert refusal.value.field == "timezone"
    assert refusal.value.value == zone


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
        (UTC, "UTC"),
        (timezone(timedelta(hours=5, minutes=30)), "UTC+05:30"),
        (timezone(-timedelta(hours=3), "ART"), "UTC-03:00"),
    ],
)
def test_a_zone_is_stored_under_a_name_that_gives_it_back(zone: tzinfo, name: str) -> None:
    assert timetable("0 9 * * *", zone).timezone == name
    moment = instant("2026-07-01T12:00Z")
    assert moment.astimezone(zone_of(name)[0]).utcoffset() == moment.astimezone(zone).utcoffset()


def test_a_zone_without_a_name_is_refused() -> None:
    class Nowhere(tzinfo):
        def utcoffset(self, _moment: datetime | None) -> timedelta:
            return timedelta(0)

        def dst(self, _moment: datetime | None) -> None:
            return None

        def tzname(self, _moment: datetime | None) -> str:
            return "nowhere"

    with pytest.raises(ConfigurationError, match="has a name"):
        timetable("0 9 * * *", Nowhere())
