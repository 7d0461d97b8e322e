"""The clock of schedules: cron text and the triggers of APScheduler, which is known here alone.

APScheduler's cron and calendar triggers are asked in UTC, as if the clock on the wall never changed; ``wall_clock``
makes instants of what they answer, so that every schedule has the same rules where a clock does change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Final, Protocol, TypeAlias
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from dbos_orm._services.cron_text import parse, spelled
from dbos_orm._services.wall_clock import WallClock, next_instant
from dbos_orm.errors import ConfigurationError

After: TypeAlias = Callable[[datetime], datetime | None]
"""The first instant behind another one, in UTC; None if there is none."""

_LEAST: Final = timedelta(microseconds=1)
_WEEKDAYS: Final = {0: "sun", 1: "mon", 2: "tue", 3: "wed", 4: "thu", 5: "fri", 6: "sat"}
_FIXED_ZONE: Final = re.compile(r"UTC(?P<sign>[+-])(?P<hours>\d\d):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?")
_ADDRESS: Final = re.compile(r" (?:object )?at 0x[0-9a-fA-F]+")
_MEETINGS: Final = 10_000


class Trigger(Protocol):
    """A trigger of APScheduler (``apscheduler.triggers``), or a subclass of its ``BaseTrigger``."""

    def get_next_fire_time(self, previous_fire_time: Any, now: Any, /) -> Any:
        """The next instant to fire at, or None."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """When a schedule is due. A row has the ``expression``, or the ``trigger`` of code as people read it."""

    after: After
    timezone: str
    expression: str | None = None
    trigger: str | None = None


def timetable(schedule: str | Trigger, zone: str | tzinfo | None = None) -> Timetable:
    """The timetable of cron text or of a trigger; the zone is UTC by default, or that of the trigger.

    Raises:
        ConfigurationError: it cannot be read, or would differ from process to process.
    """
    if isinstance(schedule, str):
        return text_timetable(schedule, zone)
    if not isinstance(schedule, BaseTrigger):
        raise ConfigurationError(
            "schedule", schedule, "cron text, or a trigger of APScheduler", "write for example '0 9 * * MON-FRI'"
        )
    zones = {name_of_zone(each) for each in _zones(schedule)}
    given = None if zone is None else zone_of(zone)[1]
    if given is not None and zones - {given}:
        raise ConfigurationError(
            "timezone",
            given,
            f"that of the trigger, {', '.join(sorted(zones))}",
            f"make the trigger with timezone={given!r}, and leave it out here",
        )
    name = given or (zones.pop() if len(zones) == 1 else "UTC")
    return Timetable(_after_trigger(schedule), name, trigger=_described(schedule))


def text_timetable(expression: str, zone: str | tzinfo | None = None) -> Timetable:
    """The timetable of cron text; raises as ``timetable``."""
    found, name = zone_of("UTC" if zone is None else zone)
    fields = parse(expression)
    common = {
        "second": spelled(fields.seconds, range(60)),
        "minute": spelled(fields.minutes, range(60)),
        "hour": spelled(fields.hours, range(24)),
        "month": spelled(fields.months, range(1, 13)),
    }
    day = {"day": spelled(fields.days, range(1, 32))}
    weekday = {"day_of_week": spelled(fields.weekdays, range(7), _WEEKDAYS)}
    kinds = [day, weekday] if fields.either_day else [day | weekday]
    triggers = [CronTrigger(**common, **kind, timezone=UTC) for kind in kinds]
    walls = _walls(*triggers)
    if walls(datetime(2000, 1, 1, tzinfo=UTC)) is None:
        raise ConfigurationError("expression", expression, "a day that exists", "no month of these has this day")

    def after(instant: datetime) -> datetime | None:
        return next_instant(instant, found, walls, repeats=fields.repeats)

    return Timetable(after, name, expression=expression)


# -- time zones ----------------------------------------------------------------------------------


def zone_of(zone: str | tzinfo) -> tuple[tzinfo, str]:
    """A time zone and its name, from either.

    Raises:
        ConfigurationError: no zone has this name, or the zone has no name that another process could read.
    """
    if isinstance(zone, tzinfo):
        return zone_of(name_of_zone(zone))
    fixed = _FIXED_ZONE.fullmatch(str(zone))
    if fixed is not None:
        parts = {name: int(value or 0) for name, value in fixed.groupdict().items() if name != "sign"}
        offset = timedelta(**parts)
        if offset < timedelta(days=1):
            return timezone(-offset if fixed["sign"] == "-" else offset), zone
    try:
        return ZoneInfo(zone), zone
    except (TypeError, ValueError, OSError, KeyError, AttributeError):
        raise ConfigurationError(
            "timezone",
            zone,
            "a time zone of the IANA database, such as 'Europe/Berlin'",
            "check its spelling; a system without that database needs the package tzdata",
        ) from None


def name_of_zone(zone: tzinfo) -> str:
    """The name under which another process finds a zone; raises as ``zone_of``."""
    # `key` is what zoneinfo calls it, `zone` what pytz does.
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if isinstance(name, str):
        return name
    if isinstance(zone, timezone):
        return str(timezone(zone.utcoffset(None)))
    raise ConfigurationError("timezone", zone, "a time zone that has a name", "pass zoneinfo.ZoneInfo('Europe/Berlin')")


def _zones(trigger: Any) -> list[tzinfo]:
    """The zones whose clock a trigger reads."""
    if type(trigger) in (AndTrigger, OrTrigger):
        return [zone for part in trigger.triggers for zone in _zones(part)]
    zone = None if type(trigger) is IntervalTrigger else getattr(trigger, "timezone", None)
    return [zone] if isinstance(zone, tzinfo) else []


# -- triggers ------------------------------------------------------------------------------------


def _after_trigger(trigger: Any) -> After:
    if getattr(trigger, "jitter", None):
        raise ConfigurationError(
            "schedule",
            trigger,
            "a trigger that gives every process the same instants",
            "leave jitter out; to spread the load, give the schedule a queue with a limit",
        )
    if type(trigger) in (AndTrigger, OrTrigger):
        parts = [_after_trigger(part) for part in trigger.triggers]
        return _first_of(parts) if type(trigger) is OrTrigger else _agreed(parts, trigger)
    if type(trigger) is CronTrigger:
        return _after_cron(trigger)
    if type(trigger) is IntervalTrigger:
        return _after_interval(trigger)
    if type(trigger) is CalendarIntervalTrigger:
        return _after_calendar(trigger)
    if type(trigger) is DateTrigger:
        instant = trigger.run_date.astimezone(UTC)
        _require_explicit(instant, trigger, "run_date")
        return lambda after: instant if after < instant else None
    return _after_foreign(trigger)


def _require_explicit(instant: datetime, trigger: Any, name: str) -> None:
    """APScheduler replaces a missing instant by the present, which is another one in every process."""
    if instant.microsecond:
        raise ConfigurationError(
            "schedule",
            trigger,
            f"a trigger with an explicit {name} in whole seconds, the same in every process",
            f"write {name}='2026-01-01 00:00:00' or another fixed instant",
        )


def _after_cron(trigger: Any) -> After:
    fields = {field.name: str(field) for field in trigger.fields if not field.is_default}
    # What stands behind the last given field has its lowest value: that is in `fields`, and not a default of ours.
    fields |= {field.name: str(field) for field in trigger.fields if field.is_default and str(field) != "*"}
    walls = _walls(CronTrigger(**fields, timezone=UTC))
    hour = next(str(field) for field in trigger.fields if field.name == "hour")
    zone = zone_of(name_of_zone(trigger.timezone))[0]
    first, last = trigger.start_date, trigger.end_date

    def after(instant: datetime) -> datetime | None:
        if first is not None:
            instant = max(instant, first.astimezone(UTC) - _LEAST)
        found = next_instant(instant, zone, walls, repeats=hour.startswith("*"))
        return None if found is None or (last is not None and found > last) else found

    return after


def _after_interval(trigger: Any) -> After:
    start: datetime = trigger.start_date.astimezone(UTC)
    interval: timedelta = trigger.interval
    _require_explicit(start, trigger, "start_date")

    def after(instant: datetime) -> datetime | None:
        # Counted in whole microseconds: APScheduler's own floats meet the same slot twice on a long way.
        found = start if instant < start else start + ((instant - start) // interval + 1) * interval
        return None if trigger.end_date is not None and found > trigger.end_date else found

    return after


def _after_calendar(trigger: Any) -> After:
    zone = zone_of(name_of_zone(trigger.timezone))[0]
    length = {name: getattr(trigger, name) for name in ("years", "months", "weeks", "days")}
    at = dict(zip(("hour", "minute", "second"), trigger.__getstate__()["time"], strict=True))
    clock: Any = CalendarIntervalTrigger(
        **length, **at, start_date=trigger.start_date, end_date=trigger.end_date, timezone=UTC
    )
    first: Any = clock.get_next_fire_time(None, None)
    reached = first

    def walls(wall: datetime) -> datetime | None:
        # It counts from its start, and knows nothing but the time before: where it was asked last is a good beginning.
        nonlocal reached
        found = reached if reached.replace(tzinfo=None) < wall else first
        while found is not None and found.replace(tzinfo=None) < wall:
            reached, found = found, clock.get_next_fire_time(found, None)
        return None if found is None else found.replace(tzinfo=None)

    return lambda instant: next_instant(instant, zone, walls, repeats=False)


def _after_foreign(trigger: Any) -> After:
    def after(instant: datetime) -> datetime | None:
        least = instant + _LEAST
        found = _instant(trigger, trigger.get_next_fire_time(None, least))
        if found is not None and found <= instant:
            # Made for being told what was before.
            found = _instant(trigger, trigger.get_next_fire_time(instant, least))
        return None if found is None or found <= instant else found

    return after


def _instant(trigger: Any, found: Any) -> datetime | None:
    if found is None:
        return None
    if not isinstance(found, datetime) or found.utcoffset() is None:
        raise ConfigurationError(
            "schedule", trigger, f"a trigger that gives aware datetimes, not {found!r}", "give them a tzinfo"
        )
    return found.astimezone(UTC)


def _first_of(parts: list[After]) -> After:
    def after(instant: datetime) -> datetime | None:
        return min((found for part in parts if (found := part(instant)) is not None), default=None)

    return after


def _agreed(parts: list[After], trigger: Any) -> After:
    def after(instant: datetime) -> datetime | None:
        for _ in range(_MEETINGS):
            found = [part(instant) for part in parts]
            instants = [each for each in found if each is not None]
            if len(instants) < len(found) or not instants:
                return None
            if min(instants) == max(instants):
                return instants[0]
            instant = max(instants) - _LEAST
        raise ConfigurationError(
            "schedule", trigger, f"parts that meet within {_MEETINGS} tries", "combine cron triggers on whole minutes"
        )

    return after


def _walls(*triggers: Any) -> WallClock:
    """The earliest time on the wall that any of these triggers of UTC means."""

    def walls(wall: datetime) -> datetime | None:
        instants = [trigger.get_next_fire_time(None, wall.replace(tzinfo=UTC)) for trigger in triggers]
        return min((found.replace(tzinfo=None) for found in instants if found is not None), default=None)

    return walls


def _described(trigger: Any) -> str:
    """A trigger for people, the same text in every process."""
    kind: Any = type(trigger)
    if kind.__repr__ is object.__repr__ and kind.__str__ is object.__str__:
        return f"{kind.__module__}.{kind.__qualname__}"
    text = str(trigger) if kind.__repr__ is object.__repr__ else repr(trigger)
    return _ADDRESS.sub("", text)
