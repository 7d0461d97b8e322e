"""Which classes a function speaks of, in its annotations and in its code.

Annotations are read late: a name that exists only for type checkers, or is defined further down, must not
break the decoration of a function.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import InitVar
from enum import Enum
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from dbos_orm.serialization._shapes import is_pydantic

if sys.version_info >= (3, 14):
    import annotationlib

_WITHOUT_DATA = frozenset({"builtins", "enum", "pydantic", "typing"})
"""Packages whose own base classes have annotations that say nothing about the user's values."""


class Annotation(NamedTuple):
    """One annotation, perhaps still a string, and where its names are looked up."""

    written: object
    globals: Mapping[str, Any]
    owner: Callable[..., object] | type

    @property
    def locals(self) -> Mapping[str, Any]:
        """The names of the class, or those that the function takes from the function around it."""
        return vars(self.owner) if isinstance(self.owner, type) else _closure(self.owner)

    def has_name(self, name: str) -> bool:
        """Whether a name can be found now."""
        return name in self.locals or name in self.globals

    def resolve(self) -> object:
        """What the annotation means; raises what evaluating it raises, usually NameError."""
        stub = type("stub", (), {"__annotations__": {"it": self.written}})
        hints = typing.get_type_hints(stub, dict(self.globals), dict(self.locals), include_extras=True)
        return hints["it"]


def annotations_of(source: Callable[..., object] | type) -> Iterator[Annotation]:
    """The annotations of a function's parameters and result, or of the attributes of a class."""
    if isinstance(source, type):
        for base in source.__mro__:
            if base.__module__.partition(".")[0] in _WITHOUT_DATA:
                continue
            module = sys.modules.get(base.__module__)
            # ``class Orders(Page[Order])`` says Order in its bases only.
            for written in (*_written(base).values(), *vars(base).get("__orig_bases__", ())):
                yield Annotation(written, vars(module) if module else {}, base)
        # A generic pydantic model fills its parameters in here, not in its annotations.
        for each in getattr(source, "model_fields", {}).values() if is_pydantic(source) else ():
            yield Annotation(each.annotation, {}, source)
        return
    function = inspect.unwrap(source)
    names = getattr(function, "__globals__", {})
    for written in _written(function).values():
        yield Annotation(written, names, function)


def classes_in(meaning: object) -> Iterator[type]:
    """The classes that a resolved annotation is made of, through generics, unions, aliases and literals."""
    todo = [meaning]
    seen: dict[int, object] = {}  # holds the parts, so that no identity is used twice
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        todo += _parts(part)
        if isinstance(part, Enum):
            yield type(part)
        elif isinstance(part, type) and typing.get_origin(part) is None:
            yield part


def errors_named_by(function: Callable[..., object]) -> Iterator[type[BaseException]]:
    """The exception classes that the function's code names: ``raise OutOfStock``, ``except shop.Error``."""
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return
    names = set(_names(code))
    scope = {**getattr(function, "__globals__", {}), **_closure(function)}
    values = [scope[name] for name in names if name in scope]
    for value in list(values):
        if isinstance(value, ModuleType | type):
            values += [vars(value)[name] for name in names if name in vars(value)]
        elif isinstance(value, tuple):
            values += value
    for value in values:
        if isinstance(value, type) and issubclass(value, BaseException):
            yield value


def _parts(part: object) -> list[object]:
    if isinstance(part, list | tuple):  # the parameters of a Callable
        return list(part)
    if isinstance(part, InitVar):
        return [part.type]
    parts = list(typing.get_args(part))
    if isinstance(part, type):
        return parts
    # An alias made by a ``type`` statement, a NewType, a TypeVar, the class of a generic.
    inner = ("__value__", "__supertype__", "__bound__", "__constraints__", "__origin__")
    return [*parts, *(getattr(part, name) for name in inner if getattr(part, name, None) is not None)]


def _written(thing: Callable[..., object] | type) -> dict[str, Any]:
    try:
        return inspect.get_annotations(thing)
    except NameError:
        # From Python 3.14 on, annotations are code that runs when they are asked for.
        if sys.version_info >= (3, 14):
            return annotationlib.get_annotations(thing, format=annotationlib.Format.FORWARDREF)
        raise
    except TypeError:  # a callable without annotations, such as a partial
        return {}


def _closure(function: Callable[..., object]) -> dict[str, Any]:
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    found = {}
    for name, cell in zip(code.co_freevars if code else (), cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
