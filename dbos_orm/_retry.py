"""When a failed step is tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from dbos_orm.config import Duration, seconds
from dbos_orm.errors import ConfigurationError

_JITTER: Final = 0.2
"""Up to a fifth is taken off a pause, so that many steps that failed together do not return together."""


class Retry(NamedTuple):
    """How often a step is tried, and how long the pauses are.

    The pause after attempt ``n`` is ``backoff * backoff_rate ** (n - 1)``, at most ``max_backoff``,
    shortened by a random part of up to a fifth. ``retry_if`` says which errors are worth another
    attempt: exception types, or a function of the error; any other error is recorded at once.
    """

    max_attempts: int = 3
    backoff: Duration = 1
    backoff_rate: float = 2.0
    max_backoff: Duration = 3600
    retry_if: Callable[[Exception], bool] | tuple[type[Exception], ...] = (Exception,)

    def validate(self) -> None:
        """Raise ``ConfigurationError`` for a value that cannot work."""
        max_attempts: object = self.max_attempts
        if not isinstance(max_attempts, int) or isinstance(max_attempts, bool) or max_attempts < 1:
            raise ConfigurationError("retry.max_attempts", max_attempts, "a whole number from 1")
        for name in ("backoff", "max_backoff"):
            if seconds(getattr(self, name), field=f"retry.{name}") < 0:
                raise ConfigurationError(f"retry.{name}", getattr(self, name), "zero or more")
        if self.backoff_rate < 1:
            raise ConfigurationError("retry.backoff_rate", self.backoff_rate, "1 or more, so that pauses do not shrink")

    def applies_to(self, error: Exception) -> bool:
        """Whether this error is worth another attempt."""
        if isinstance(self.retry_if, tuple):
            return isinstance(error, self.retry_if)
        return self.retry_if(error)

    def pause_after(self, attempt: int, chance: float) -> float:
        """Seconds to wait after attempt ``attempt`` (from 1); ``chance`` in [0, 1) picks the jitter."""
        # A long history of attempts must not overflow the float before the limit is applied.
        growth = self.backoff_rate ** min(attempt - 1, 64)
        return min(seconds(self.backoff) * growth, seconds(self.max_backoff)) * (1 - _JITTER * chance)
