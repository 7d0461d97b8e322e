"""How an error travels: pickled and copied with its facts, whatever its constructor takes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

Reduced: TypeAlias = tuple[Callable[..., BaseException], tuple[object, ...]]


def reduced(error: BaseException, stand_in: Callable[[BaseException], BaseException]) -> Reduced:
    """What ``__reduce__`` gives; ``stand_in`` replaces an error among the facts that cannot travel itself."""
    # The default reduction calls the class with ``args``, which holds the message, not the facts.
    facts = {name: _portable(fact, stand_in) for name, fact in vars(error).items()}
    return _rebuild, (type(error), error.args, facts)


def _rebuild(kind: type[BaseException], args: tuple[object, ...], facts: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    vars(error).update(facts)
    return error


def _portable(fact: object, stand_in: Callable[[BaseException], BaseException]) -> object:
    if isinstance(fact, list):
        return [_portable(item, stand_in) for item in fact]
    with suppress(Exception):
        # An exception whose constructor does not take its ``args`` pickles, and then cannot be read: copying
        # rebuilds it in the same way.
        if isinstance(fact, BaseException):
            copy.copy(fact)
        pickle.dumps(fact)
        return fact
    return stand_in(fact) if isinstance(fact, BaseException) else repr(fact)
