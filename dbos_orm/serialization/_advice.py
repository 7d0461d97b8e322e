"""What to do about a value that cannot be recorded."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from enum import Enum

from dbos_orm.serialization._shapes import CONTENT_TYPES, is_mapped, is_pydantic


def advice_for(value: object) -> str:
    """One clause that says how to put right a value of a type that is not known."""
    kind = type(value)
    return (
        _database_advice(value)
        or _conversion_advice(value)
        or (_registration_advice(kind) if _is_data_class(kind) else None)
        or f"pass what it is made of, or register it: dbos.types.register({kind.__qualname__}, encode=..., decode=...)"
    )


def unknown_type_advice(name: str) -> str:
    """What to do when a payload names a class that is not registered here."""
    module, _, qualified_name = name.partition(":")
    return (
        f"import {module} and register it: dbos.types.register({qualified_name}); if it was moved, "
        f"register its new class with former_names=[{name!r}]"
    )


def _database_advice(value: object) -> str | None:
    if is_mapped(type(value)):
        return "an ORM instance lives in its Session; pass its primary key, and load it in a step or transaction"
    if hasattr(value, "_mapping"):
        return "a row of a query; pass dict(row._mapping), or tuple(row)"
    return None


def _conversion_advice(value: object) -> str | None:
    kind = type(value)
    if isinstance(value, CONTENT_TYPES) and kind not in CONTENT_TYPES and not _is_data_class(kind):
        base = next(base for base in kind.__mro__ if base in CONTENT_TYPES)
        return f"only {base.__name__} itself comes back as what it was; convert it with {base.__name__}(...)"
    cases = (
        (
            isinstance(value, BaseException),
            "an exception is recorded when it is raised; raise it, or pass its text",
        ),
        (inspect.isawaitable(value), "it was not awaited; await it first"),
        (isinstance(value, type) or inspect.isroutine(value), "code is not recorded; pass its name"),
        (isinstance(value, Iterator), "an iterator can be read once; pass list(...) of it"),
        (kind.__module__.partition(".")[0] == "numpy", "convert it with .item() or .tolist()"),
    )
    return next((advice for applies, advice in cases if applies), None)


def _is_data_class(kind: type) -> bool:
    return issubclass(kind, Enum) or dataclasses.is_dataclass(kind) or is_pydantic(kind) or hasattr(kind, "_fields")


def _registration_advice(kind: type) -> str:
    return f"register it: dbos.types.register({kind.__qualname__}), or name it in the annotations of a workflow or step"
