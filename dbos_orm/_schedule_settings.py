"""What code says of a schedule, checked once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from dbos_orm.config import is_storable
from dbos_orm.errors import ConfigurationError

CatchUp: TypeAlias = Literal["none", "last", "all"]

_LONGEST_NAME: Final = 200
_CATCH_UPS: Final = ("none", "last", "all")


@dataclass(frozen=True, slots=True, eq=False)
class ScheduleSettings:
    """A schedule that code declares. ``after`` gives the first slot behind an instant, or None.

    It has the ``expression``, or the ``trigger`` as people read it.
    """

    name: str
    workflow_name: str
    after: Callable[[datetime], datetime | None]
    timezone: str
    expression: str | None
    trigger: str | None
    queue: str | None
    catch_up: str

    @property
    def when(self) -> str:
        """The cron text or the trigger, for people."""
        return self.expression or self.trigger or ""


def require_schedule_name(name: object) -> None:
    """Raise ``ConfigurationError`` unless a schedule may have this name."""
    if not isinstance(name, str) or not name.strip() or not is_storable(name) or len(name) > _LONGEST_NAME:
        expected = f"a text of 1 to {_LONGEST_NAME} characters"
        raise ConfigurationError("name", name, expected, "pass for example name='nightly-report'")


def checked_catch_up(value: object) -> str:
    """What becomes of missed slots; raises ``ConfigurationError`` if it is none of the three."""
    if not isinstance(value, str) or value not in _CATCH_UPS:
        raise ConfigurationError("catch_up", value, f"one of {list(_CATCH_UPS)}", "leave it out for 'last'")
    return value


def require_schedulable(name: str, signature: inspect.Signature | None, *, context: bool) -> None:
    """Raise ``ConfigurationError`` unless a workflow takes what a schedule gives it."""
    given = ("scheduled_at", "actual_at", *(("context",) if context else ()))
    try:
        if signature is not None:
            signature.bind(*[datetime.now(UTC)] * len(given))
    except TypeError as error:
        raise ConfigurationError(
            "workflow",
            f"{name}{signature}",
            f"one that takes ({', '.join(given)}), and nothing else that has no default",
            str(error),
        ) from None
