"""When a failed step is tried again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from dbos_orm.config import Duration, require_count, seconds
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
        require_count("retry.max_attempts", self.max_attempts)
        for name in ("backoff", "max_backoff"):
            if seconds(getattr(self, name), field=f"retry.{name}") < 0:
                raise ConfigurationError(
                    f"retry.{name}", getattr(self, name), "zero or more", "use 0 to try again at once"
                )
        backoff_rate: object = self.backoff_rate
        if not isinstance(backoff_rate, (int, float)) or not 1 <= backoff_rate < math.inf:
            raise ConfigurationError(
                "retry.backoff_rate", backoff_rate, "a number from 1", "use 1 for pauses that are all the same"
            )
        if not (_are_errors(self.retry_if) if isinstance(self.retry_if, tuple) else callable(self.retry_if)):
            raise ConfigurationError(
                "retry.retry_if",
                self.retry_if,
                "a tuple of exception types, or a function of the error",
                "write for example retry_if=(ConnectionError,)",
            )

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


def _are_errors(kinds: tuple[object, ...]) -> bool:
    return all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)
