"""How long one attempt of a step may take, and how its code learns that the time is up."""

from __future__ import annotations

from datetime import timedelta

from dbos_orm._clock import steady_seconds
from dbos_orm.errors import StepTimeoutError

__all__ = ["TimeLimit"]


class TimeLimit:
    """The time of one attempt, which begins now. Who waits for the attempt gives it up; its code may ask here.

    ``outer`` is the limit of the step in which this one is a plain call: when its time is up, so is this one's.
    """

    __slots__ = ("_ends", "_is_given_up", "outer", "step", "timeout")

    def __init__(self, step: str, timeout: timedelta, outer: TimeLimit | None = None) -> None:
        self.step = step
        self.timeout = timeout
        self.outer = outer
        self._ends = steady_seconds() + timeout.total_seconds()
        self._is_given_up = False

    @property
    def left(self) -> float:
        """Seconds until the time is up; zero when it is."""
        left = max(0.0, self._ends - steady_seconds())
        return left if self.outer is None else min(left, self.outer.left)

    @property
    def is_over(self) -> bool:
        """Whether the time is up, or nobody waits for the attempt any more."""
        return self._is_given_up or self.left == 0 or (self.outer is not None and self.outer.is_over)

    def give_up(self) -> None:
        """Note that nobody waits for the attempt any more."""
        self._is_given_up = True

    def error(self) -> StepTimeoutError:
        """What the attempt has come to when its time is up: an error of the step whose time it was."""
        if self.outer is not None and self.outer.is_over:
            return self.outer.error()
        return StepTimeoutError(self.step, self.timeout)

    def require(self) -> None:
        """Let no code go on that nobody waits for: whatever it did now would be done without a record.

        Raises:
            StepTimeoutError: the time is up.
        """
        if self.is_over:
            raise self.error()
