"""What an error says about a transaction: whether another one may succeed, and how long to wait for it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from sqlalchemy.exc import DBAPIError

from dbos_orm._context import logger
from dbos_orm._dialects import Dialect, Fault

_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 2.0
_SILENT_SECONDS: Final = 1.0


class Pauses:
    """How long to wait before the next try: twice as long each time, with jitter."""

    __slots__ = ("_is_reported", "_seconds", "_waited")

    def __init__(self) -> None:
        self._seconds = _FIRST_PAUSE_SECONDS
        self._waited = 0.0
        self._is_reported = False

    def next(self) -> float:
        """Seconds to wait now."""
        seconds, self._seconds = self._seconds, min(2 * self._seconds, _LONGEST_PAUSE_SECONDS)
        seconds *= 0.5 + random.random() / 2
        self._waited += seconds
        return seconds

    def warn(self, error: BaseException) -> None:
        """Tell the log, once and not of a short time, that somebody waits for a database."""
        if not self._is_reported and self._waited > _SILENT_SECONDS:
            self._is_reported = True
            logger.warning("the database of a transaction does not answer, still trying: %s", error)


def fault_of(dialect: Dialect, error: BaseException) -> Fault | None:
    """What an error of the user's function says of the database; None if it is the function's own.

    Other systems are away or busy too, in the same words: only SQLAlchemy's errors count. But whatever a
    function makes of a lost connection, its transaction cannot commit any more.
    """
    if isinstance(error, DBAPIError):
        return dialect.fault(error)
    is_lost = any(
        isinstance(cause, DBAPIError) and dialect.fault(cause) is Fault.DISCONNECTED for cause in _causes(error)
    )
    return Fault.DISCONNECTED if is_lost else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = [error]
    while (cause := seen[-1].__cause__ or seen[-1].__context__) is not None and cause not in seen:
        yield cause
        seen.append(cause)
