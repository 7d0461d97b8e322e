"""From what a clock on the wall shows to instants, through every change of the clock.

Between two changes the clock runs evenly, and both are the same but for the offset. A change to a later time leaves
out a span, and a change to an earlier time shows one twice.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, TypeAlias

WallClock: TypeAlias = Callable[[datetime], datetime | None]
"""The first time on the wall (naive) that is meant, at or after another one; None if there is none."""

_LEAST: Final = timedelta(microseconds=1)
_STRIDE: Final = timedelta(hours=6)
"""Zones stay longer than this on any offset."""
_LAST_YEAR: Final = 9990


def next_instant(after: datetime, zone: tzinfo, walls: WallClock, *, repeats: bool) -> datetime | None:
    """The first instant behind ``after`` at which the wall clock of ``zone`` shows a time that is meant, in UTC.

    A time that it shows twice counts twice if ``repeats``, else the first time alone. Times that it leaves
    out count once, all together, at the first instant after them.
    """
    begin, least = after.astimezone(UTC), _LEAST
    while begin.year < _LAST_YEAR:
        offset = _offset(begin, zone)
        wall = walls(_wall(begin, offset) + least)
        if wall is None:
            return None
        found = wall.replace(tzinfo=UTC) - offset
        change = _first_change(begin, found, zone)
        if change is not None:
            if _leaves_out(change, offset, _offset(change, zone), walls):
                return change
            begin, least = change, timedelta(0)
        elif not repeats and found.astimezone(zone).fold:
            begin, least = _end_of_repetition(found, zone), timedelta(0)
        else:
            return found
    return None


def _wall(instant: datetime, offset: timedelta) -> datetime:
    return (instant + offset).replace(tzinfo=None)


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def _leaves_out(change: datetime, before: timedelta, behind: timedelta, walls: WallClock) -> bool:
    wall = walls(_wall(change, before)) if behind > before else None
    return wall is not None and wall < _wall(change, behind)


def _first_change(begin: datetime, end: datetime, zone: tzinfo) -> datetime | None:
    """The first instant behind ``begin``, up to ``end``, at which the offset is another one than at ``begin``."""
    offset = _offset(begin, zone)
    while begin < end:
        reached = min(begin + _STRIDE, end)
        if _offset(reached, zone) != offset:
            return _change_between(begin, reached, zone)
        begin = reached
    return None


def _change_between(before: datetime, behind: datetime, zone: tzinfo) -> datetime:
    offset = _offset(before, zone)
    while behind - before > _LEAST:
        middle = before + (behind - before) // 2
        if _offset(middle, zone) == offset:
            before = middle
        else:
            behind = middle
    return behind


def _end_of_repetition(instant: datetime, zone: tzinfo) -> datetime:
    """The first instant at which the clock shows a time that it has not shown before."""
    local = instant.astimezone(zone)
    repeated = (local.replace(fold=0).utcoffset() or timedelta(0)) - (local.utcoffset() or timedelta(0))
    return _change_between(instant - repeated, instant, zone) + repeated
