"""What can be decorated, and how the result looks to inspection."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final, Self

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm.config import is_storable
from dbos_orm.errors import ConfigurationError

_CLASS_METHOD_ADVICE: Final = "make it a @staticmethod, or a method of an instance that you register"


def name_of(function: Callable[..., Any], name: object) -> str:
    """The name under which a function is recorded: the given one, or its qualified name.

    Raises:
        ConfigurationError: the name is empty, or the function has none.
    """
    if name is not None:
        if not isinstance(name, str) or not name.strip() or not is_storable(name):
            raise ConfigurationError("name", name, "a text", "leave it out to use the function's own name")
        return name
    found = getattr(function, "__qualname__", None)
    if found is None:
        raise ConfigurationError("name", None, f"a name for {function!r}, which has none of its own", "pass name=")
    return str(found)


def require_function(function: Any, decorator: str, *, is_async: bool | None) -> None:
    """Refuse what cannot become durable: at the decorator, where the mistake is.

    ``is_async``: whether it must be ``async def``, must not, or may be either (None).
    """
    if isinstance(function, classmethod):
        raise ConfigurationError(
            decorator,
            function.__func__.__qualname__,
            "a function or a static method, not a class method",
            _CLASS_METHOD_ADVICE,
        )
    if isinstance(function, staticmethod):
        raise ConfigurationError(
            decorator,
            function.__func__.__qualname__,
            "the function below @staticmethod",
            f"write @staticmethod above @{decorator}",
        )
    if _is_in_class(function, "cls"):
        raise ConfigurationError(
            decorator, function.__qualname__, "a function, a static method or a method with self", _CLASS_METHOD_ADVICE
        )
    if not callable(function):
        raise ConfigurationError(decorator, function, "a function", f"write @{decorator} above a def")
    if is_async is False and inspect.iscoroutinefunction(function):
        raise ConfigurationError(decorator, function.__qualname__, "a def", "use AsyncDBOS for async def functions")
    if is_async is True and not inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            decorator,
            getattr(function, "__qualname__", repr(function)),
            "an async def",
            "make it async def, or use DBOS",
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            decorator,
            function.__qualname__,
            "a function that returns its result",
            "return a list, do not yield",
        )


def is_method(function: Any) -> bool:
    """Whether it is defined in a class body and takes self; told by its names, because the class is not made yet."""
    return _is_in_class(function, "self")


def _is_in_class(function: Any, first: str) -> bool:
    owner = str(getattr(function, "__qualname__", "")).rpartition(".")[0]
    parameters = list(signature.parameters) if (signature := signature_of(function)) is not None else []
    return bool(owner) and not owner.endswith("<locals>") and parameters[:1] == [first]


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of a function, where it can be told; annotations stay unresolved."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def without_self(signature: inspect.Signature | None) -> inspect.Signature | None:
    """The signature of a method as its callers see it."""
    if signature is None:
        return None
    return signature.replace(parameters=list(signature.parameters.values())[1:])


class Decorated:
    """What a decorator makes of a function: it looks like the function, and is bound to an object as that would be."""

    __name__: str
    __signature__: inspect.Signature | None
    _method_signature: inspect.Signature | None

    def _describe_as(self, function: Callable[..., Any], *, without: str | None = None) -> None:
        """Look like ``function``; ``without``: a parameter that callers do not give."""
        described: Any = self
        functools.update_wrapper(described, function)
        signature = signature_of(function)
        if signature is not None and without is not None:
            kept = [parameter for parameter in signature.parameters.values() if parameter.name != without]
            signature = signature.replace(parameters=kept)
        if signature is not None:
            self.__signature__ = signature
        self._method_signature = without_self(signature)

    def _with(self, **changes: Any) -> Self:
        """The same with other attributes. Methods are bound at each access: this must cost nothing to speak of."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), **changes)
        return other

    def _as_method(self, **changes: Any) -> Self:
        return self._with(__signature__=self._method_signature, **changes)


class AwaitedWhenCalled:
    """Marks objects whose calls give coroutines: frameworks that look await them, instead of using a thread."""

    if sys.version_info < (3, 12):
        # What asyncio looks for; inspect knows no mark before Python 3.12.
        _is_coroutine: ClassVar[object] = vars(asyncio.coroutines)["_is_coroutine"]


if sys.version_info >= (3, 12):
    inspect.markcoroutinefunction(AwaitedWhenCalled)


def session_parameter(function: Callable[..., Any], *, is_async: bool) -> tuple[int, str]:
    """Where a transaction takes its session: position and name of the parameter.

    It is the first parameter, or the second of a method (told by the qualified name), and its annotation
    must be a Session (AsyncSession in async) where it can be resolved.

    Raises:
        ConfigurationError: there is no such parameter.
    """
    kind: type[Any] = AsyncSession if is_async else Session
    signature = signature_of(function)
    parameters = [] if signature is None else list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for position, parameter in enumerate(positional[:2]):
        if _is_session(function, parameter, kind):
            return position, parameter.name
    wanted = f"a function whose first parameter is a {kind.__name__}"
    if any(p.kind is p.KEYWORD_ONLY and _is_session(function, p, kind) for p in parameters):
        raise ConfigurationError(
            "transaction", function.__qualname__, wanted, "the session cannot be keyword-only: put it first"
        )
    raise ConfigurationError(
        "transaction",
        getattr(function, "__qualname__", repr(function)),
        wanted,
        f"write def {getattr(function, '__name__', 'f')}(session: {kind.__name__}, ...)",
    )


def _is_session(function: Callable[..., Any], parameter: inspect.Parameter, kind: type[Any]) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        # Perhaps imported only for type checkers: then the name is all there is.
        resolved = getattr(inspect.unwrap(function), "__globals__", {}).get(annotation.split("[")[0])
        if resolved is None:
            return parameter.name == "session" or annotation.split("[")[0].rpartition(".")[2] == kind.__name__
        annotation = resolved
    annotation = getattr(annotation, "__origin__", annotation)
    if annotation is inspect.Parameter.empty or not isinstance(annotation, type):
        return parameter.name == "session"
    return issubclass(annotation, kind)
