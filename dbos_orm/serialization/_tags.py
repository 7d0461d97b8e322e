"""Values that JSON has no word for, as an object of one key that begins with "$".

    {"$decimal": "1.50"}   {"$tuple": [1, 2]}   {"$date": "2026-11-22"}   {"$shop.models:Order": {"id": 1}}

A name with a colon is a registered class, any other one is listed here or in ``_encoding``. A dict of the
user that would read like a tag is written as ``{"$dict": [[key, value], ...]}``, as is one with other keys
than strings: no object that the user made can be taken for a tag.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from dbos_orm.serialization._refusal import RefusedError

GREATEST_PLAIN = 1 << 2048
"""Up to here an integer has fewer than 640 digits: ``int(text)`` takes it under any limit that can be set."""

LEAST_PLAIN = -GREATEST_PLAIN

_SURROGATE_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")

_MINUTE = timedelta(minutes=1)

# A zone's key becomes a file name and a resource of the package tzdata.
_ZONE_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")


class Leaf(NamedTuple):
    """How values of one type without parts are written under ``tag``, and read."""

    tag: str
    write: Callable[[Any], object]
    read: Callable[[Any], object]


def is_plain_text(value: str) -> bool:
    """Whether JSON gives this text back: two lone surrogates in a row would be read as one character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return _SURROGATE_PAIR.search(value) is None
    return True


def write_text(value: str) -> object:
    """The pieces of a text that is not plain, cut where two surrogates would be joined."""
    return {"$str": _SURROGATE_PAIR.split(value)}


def write_float(value: float) -> object:
    """A float: JSON has no infinities and no NaN."""
    return value if math.isfinite(value) else {"$float": repr(value)}


def write_int(value: int) -> object:
    """An integer: decimal text of a large one may be refused when it is read."""
    return value if LEAST_PLAIN < value < GREATEST_PLAIN else {"$int": hex(value)}


def _read_text(pieces: list[str]) -> str:
    return "".join(pieces)


def _read_int(text: str) -> int:
    return int(text, 16)


def _write_bytes(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _read_bytearray(text: str) -> bytearray:
    return bytearray(_read_bytes(text))


def _write_timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _read_timedelta(parts: list[int]) -> timedelta:
    days, seconds, microseconds = parts
    return timedelta(days, seconds, microseconds)


def _write_clock(value: datetime | time) -> object:
    """ISO text alone where that says everything; else what it leaves out is beside it."""
    zone = _zone(value.tzinfo)
    if not zone and not value.fold:
        return value.isoformat()
    if zone:
        value = value.replace(tzinfo=None)
    fold = {"fold": value.fold} if value.fold else {}
    return {"at": value.isoformat(), **zone, **fold}


def _zone(zone: tzinfo | None) -> dict[str, object]:
    if zone is None:
        return {}
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        # Python 3.11 reads an offset below a second as UTC.
        if name == timezone(offset).tzname(None) and not offset % _MINUTE:
            return {}
        return {"offset": _write_timedelta(offset), "name": name}
    if type(zone) is ZoneInfo and _ZONE_KEY.fullmatch(zone.key or ""):
        return {"zone": zone.key}
    refused = RefusedError(type(zone).__qualname__, 'use zoneinfo.ZoneInfo("Region/City") or datetime.timezone')
    refused.inside(zone, ".tzinfo")
    raise refused


def _read_clock(payload: Any, parse: Callable[[str], Any]) -> Any:
    if isinstance(payload, str):
        return parse(payload)
    value = parse(payload["at"])
    if "zone" in payload:
        if not _ZONE_KEY.fullmatch(payload["zone"]):
            raise ValueError(f"{payload['zone']!r} is no key of a time zone")
        value = value.replace(tzinfo=ZoneInfo(payload["zone"]))
    elif "offset" in payload:
        value = value.replace(tzinfo=timezone(_read_timedelta(payload["offset"]), payload["name"]))
    return value.replace(fold=payload.get("fold", 0))


def _read_datetime(payload: Any) -> Any:
    return _read_clock(payload, datetime.fromisoformat)


def _read_time(payload: Any) -> Any:
    return _read_clock(payload, time.fromisoformat)


LEAVES: dict[type, Leaf] = {
    bytes: Leaf("$bytes", _write_bytes, _read_bytes),
    bytearray: Leaf("$bytearray", _write_bytes, _read_bytearray),
    datetime: Leaf("$datetime", _write_clock, _read_datetime),
    date: Leaf("$date", date.isoformat, date.fromisoformat),
    time: Leaf("$time", _write_clock, _read_time),
    timedelta: Leaf("$timedelta", _write_timedelta, _read_timedelta),
    Decimal: Leaf("$decimal", str, Decimal),
    UUID: Leaf("$uuid", str, UUID),
}

CONTAINERS: dict[str, Callable[[Any], object]] = {
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
}

READERS: dict[str, Callable[[Any], object]] = {
    **{leaf.tag: leaf.read for leaf in LEAVES.values()},
    **CONTAINERS,
    "$str": _read_text,
    "$int": _read_int,
    "$float": float,
}

ALWAYS_KNOWN: frozenset[type] = frozenset(
    {type(None), bool, int, float, str, list, dict, tuple, set, frozenset, *LEAVES}
)
"""Types that need no registration."""
