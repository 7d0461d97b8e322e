"""What time it is: for Python, and (through the dialects) for SQL."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["Clock", "steady_seconds"]

_STEADY = getattr(time, "CLOCK_BOOTTIME", None)


def steady_seconds() -> float:
    """Seconds from an arbitrary start, never going back, and counting on while the machine is suspended.

    (``time.monotonic`` stands still then on Linux, and a lease would look younger than it is.)
    """
    return time.monotonic() if _STEADY is None else time.clock_gettime(_STEADY)


class Clock:
    """The time of one application.

    Instants that are stored or compared come from the database where it has a clock of its own
    (``controls_database`` is false); this object's ``now`` is for SQLite, which has none, and for people.
    Waiting is always measured on ``monotonic``, which no clock jump moves.
    """

    controls_database = False
    """Whether SQL must be given this clock's instants even where the database has its own clock."""

    def now(self) -> datetime:
        """The current instant, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; see ``steady_seconds``."""
        return steady_seconds()
