"""Cron text: what its fields allow, as cron means them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from dbos_orm.errors import ConfigurationError

_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_PART: Final = re.compile(r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?", re.ASCII)
_WORDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class _Field(NamedTuple):
    """One place of the text: its name, the numbers it takes, and names for them (the first for ``lowest``)."""

    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """What may be written there, for people."""
        last = self.highest - 1 if self.name == "day of week" else self.highest
        named = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        sunday = ", 0 and 7 are Sunday" if self.name == "day of week" else ""
        return (
            f"{self.lowest} to {self.highest}{named}{sunday}, in a list (1,3), a range (1-3), * for all, each with a "
            f"step (*/2, of at most {last})"
        )


_FIELDS: Final = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEKDAYS),
)


class CronText(NamedTuple):
    """The numbers that each field allows; weekdays from 0, Sunday, to 6.

    ``either_day``: day of month and day of week are both given, and a day that fits one of them is meant.
    ``repeats``: the hour is a wildcard, so that an hour that the clock shows twice counts twice.
    """

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    repeats: bool


def parse(expression: str) -> CronText:
    """Read cron text of five fields, or of six with the seconds first, or a word such as ``@daily``.

    Raises:
        ConfigurationError: it names the field, its value, and what is allowed there.
    """
    texts = _WORDS.get(expression.strip().lower(), expression).split()
    if expression.strip().startswith("@") and len(texts) == 1:
        raise ConfigurationError(
            "expression", expression, f"cron text, or one of {sorted(_WORDS)}", "write for example '@daily'"
        )
    if len(texts) not in (5, 6):
        raise ConfigurationError(
            "expression",
            expression,
            f"cron text of 5 or 6 fields, not {len(texts)}",
            "write [second] minute hour day-of-month month day-of-week, for example '0 9 * * MON-FRI'",
        )
    texts = ["0", *texts] if len(texts) == 5 else texts
    sets = [_numbers(field, text, expression) for field, text in zip(_FIELDS, texts, strict=True)]
    weekdays = frozenset(number % 7 for number in sets[5])
    # As POSIX says it; a step on the star (*/2) does not make it a restriction of its own.
    either_day = not texts[3].startswith("*") and not texts[5].startswith("*")
    repeats = texts[2].startswith("*") or len(sets[2]) == 24
    return CronText(sets[0], sets[1], sets[2], sets[3], sets[4], weekdays, either_day, repeats)


def _numbers(field: _Field, text: str, expression: str) -> frozenset[int]:
    try:
        return frozenset(number for part in text.split(",") for number in _range(field, part))
    except ValueError as error:
        raise ConfigurationError(f"{field.name} of {expression!r}", text, field.allowed, str(error) or None) from None


def _range(field: _Field, part: str) -> Iterable[int]:
    found = _PART.fullmatch(part)
    if found is None:
        raise ValueError(f"write one of these instead of {part!r}")
    highest = 6 if field.name == "day of week" else field.highest
    if found["all"]:
        first, last = field.lowest, highest
    else:
        first = _number(field, found["first"], is_last=False)
        ends = first if found["step"] is None else highest
        last = ends if found["last"] is None else _number(field, found["last"], is_last=True)
    step = 1 if found["step"] is None else int(found["step"])
    if not 1 <= step <= highest:
        raise ValueError(f"choose another step than in {part!r}, which " + ("never comes twice" if step else "is none"))
    if first > last:
        raise ValueError(f"write {part!r}, which begins behind its end, as two ranges in a list")
    return range(first, last + 1, step)


def _number(field: _Field, text: str, *, is_last: bool) -> int:
    if text.upper() in field.names:
        number = field.lowest + field.names.index(text.upper())
        # FRI-SUN ends with the Sunday that is 7.
        return 7 if is_last and text.upper() == "SUN" else number
    if not text.isdecimal() or not field.lowest <= int(text) <= field.highest:
        raise ValueError(f"write one of these instead of {text!r}")
    return int(text)


def spelled(numbers: Collection[int], everything: Iterable[int], names: Mapping[int, str] | None = None) -> str:
    """The numbers as APScheduler writes them; a star for all that there are."""
    if set(everything) <= set(numbers):
        return "*"
    return ",".join(str(number) if names is None else names[number] for number in sorted(numbers))
