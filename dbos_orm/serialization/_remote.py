"""Errors whose class may not be constructed here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dbos_orm.errors import RemoteError


def as_remote(error: RemoteError, ancestor: type[BaseException] | None) -> RemoteError:
    """The same error, one that is also an instance of ``ancestor`` where Python can make such a class.

    A step fails with a JSONDecodeError, which nobody registered: ``except ValueError`` around it
    catches it when it comes from the database, as it does where no database is.
    """
    if ancestor is not None and issubclass(ancestor, Exception) and not issubclass(ancestor, BaseExceptionGroup):
        with suppress(Exception):
            return _made_of(ancestor, error.args, vars(error))
    return error


def _made_of(ancestor: type[Exception], args: tuple[Any, ...], facts: dict[str, Any]) -> RemoteError:
    namespace = {
        "__doc__": RemoteError.__doc__,
        "__module__": RemoteError.__module__,
        "__str__": Exception.__str__,  # the ancestor's may need what only its constructor sets
        "__reduce__": _reduce,
    }
    kind = type(RemoteError.__name__, (RemoteError, ancestor), namespace)
    error: RemoteError = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(facts)
    return error


def _reduce(error: RemoteError) -> tuple[Callable[..., RemoteError], tuple[object, ...]]:
    return _made_of, (type(error).__bases__[1], error.args, vars(error))
