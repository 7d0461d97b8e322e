"""Which slots of a schedule are run when it is looked at: those that are due, and what to make of missed ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

_LEAST: Final = timedelta(microseconds=1)


class DueSlots(NamedTuple):
    """The slots to be run now, in their order, and the slot at which the schedule goes on (None: it has ended)."""

    slots: list[datetime]
    next_slot: datetime | None


def due_slots(
    after: Callable[[datetime], datetime | None],
    slot: datetime,
    now: datetime,
    *,
    watched_since: datetime,
    catch_up: str,
    limit: int,
) -> DueSlots:
    """What is to be run of a schedule that stands at ``slot``, which is due, at most ``limit`` of it at once.

    Slots before ``watched_since`` were missed: "all" runs each, "last" the newest of them if none has come
    since, and "none" forgets them. Slots that came while somebody watched are run in any case.
    """
    if catch_up == "all" or slot >= watched_since:
        return _each(after, slot, now, limit)
    first = after(watched_since - _LEAST)
    if first is not None and first <= now:
        return _each(after, first, now, limit)
    missed = [_newest(after, slot, now)] if catch_up == "last" else []
    return DueSlots(missed, first)


def _each(after: Callable[[datetime], datetime | None], slot: datetime, now: datetime, limit: int) -> DueSlots:
    slots, following = [slot], after(slot)
    while following is not None and following <= now and len(slots) < limit:
        slots.append(following)
        following = after(following)
    return DueSlots(slots, following)


def _newest(after: Callable[[datetime], datetime | None], slot: datetime, now: datetime) -> datetime:
    """The last slot that is due. A long absence has many: half of the time left is skipped with each look."""
    newest, end = slot, now
    while (following := after(newest)) is not None and following <= now:
        newest = following
        middle = after(newest + (end - newest) / 2)
        if middle is not None and middle <= now:
            newest = middle
        else:
            end = newest + (end - newest) / 2
    return newest
