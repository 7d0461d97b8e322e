"""The slots of a schedule, written down for comparing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dbos_orm._services.cron import After


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def slots(after: After, begin: str, end: str) -> list[str]:
    """Every slot behind ``begin``, up to ``end``, in UTC."""
    found, last = [], instant(end)
    slot = after(instant(begin))
    while slot is not None and slot <= last:
        assert slot.utcoffset() == timedelta(0)
        found.append(slot.strftime("%m-%d %H:%M"))
        slot = after(slot)
    return found
