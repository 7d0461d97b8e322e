"""How a call ended, as a value."""

from __future__ import annotations

import asyncio
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Returned(NamedTuple, Generic[T]):
    """The call returned ``value``."""

    value: T


class Raised(NamedTuple):
    """The call raised ``error``."""

    error: BaseException


class OwnCancellation(asyncio.CancelledError):
    """A workflow's code ended as a cancelled task does, and nobody had cancelled its task: it is the code's doing."""


def unwrap(outcome: Returned[T] | Raised) -> T:
    """Return the value, or raise the error with the traceback it came with."""
    if isinstance(outcome, Raised):
        raise outcome.error
    return outcome.value
