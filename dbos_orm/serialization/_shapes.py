"""How instances of a registered class are taken apart, and put together again without running its code.

Putting together does not call ``__init__``: it would take other arguments than the parts, and could do
things. What the class sets there beside its fields is recorded too, as pickle does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import Enum, Flag
from functools import cached_property
from typing import Any

CONTENT_TYPES: tuple[type, ...] = (
    str,
    int,
    float,
    complex,
    bytes,
    bytearray,
    list,
    tuple,
    dict,
    set,
    frozenset,
)
"""Built-in types whose instances hold something which is not an attribute."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One registered class: its name in payloads, and the two directions."""

    kind: type
    name: str
    take_apart: Callable[[Any], object]
    put_together: Callable[[Any], object]

    tag: str = field(init=False)
    """The key of its object in JSON."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", f"${self.name}")


def name_of(kind: type) -> str:
    """What a class is called in payloads: "module:qualified name"."""
    return f"{kind.__module__}:{kind.__qualname__}"


def is_mapped(kind: type) -> bool:
    """Whether SQLAlchemy maps this class."""
    return hasattr(kind, "_sa_class_manager")


def is_pydantic(kind: Any) -> bool:
    """Whether this is a pydantic model; pydantic is not imported to find out."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def find_shape(kind: type, name: str) -> Shape | None:
    """The shape of a dataclass, NamedTuple, enum or pydantic model, or None for any other class."""
    if is_mapped(kind):
        return None
    if issubclass(kind, Enum):
        return Shape(kind, name, *(_flag(kind) if issubclass(kind, Flag) else _enum(kind)))
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return Shape(kind, name, *_named_tuple(kind))
    if is_pydantic(kind):
        return Shape(kind, name, *_pydantic(kind))
    if is_dataclass(kind) and not issubclass(kind, (*CONTENT_TYPES, BaseException)):
        return Shape(kind, name, *_dataclass(kind))
    return None


_Directions = tuple[Callable[[Any], object], Callable[[Any], object]]


def _enum(kind: type[Enum]) -> _Directions:
    def put_together(name: str) -> Enum:
        return kind.__members__[name]

    return lambda member: member.name, put_together


def _flag(kind: type[Flag]) -> _Directions:
    # A combination has no name of its own.
    return lambda member: member.value, kind


def _named_tuple(kind: Any) -> _Directions:
    defaults: dict[str, object] = kind._field_defaults

    def put_together(parts: dict[str, object]) -> object:
        known = {**defaults, **parts}
        if unknown := known.keys() - set(kind._fields):
            raise ValueError(f"it has no field {min(unknown)!r} any more")
        return tuple.__new__(kind, [known[name] for name in kind._fields])

    return lambda value: dict(zip(kind._fields, value, strict=True)), put_together


def _dataclass(kind: Any) -> _Directions:
    declared = {each.name: each for each in fields(kind)}
    slots = [name for base in kind.__mro__ for name in _slots(base) if name not in declared]
    names = (*declared, *slots)

    def take_apart(value: object) -> dict[str, object]:
        try:
            parts = {name: getattr(value, name) for name in names}
        except AttributeError:  # a field with init=False may never have been set
            parts = {name: getattr(value, name) for name in names if hasattr(value, name)}
        others = getattr(value, "__dict__", {})
        if len(others) + len(slots) > len(declared):
            parts |= {name: part for name, part in others.items() if _is_state(kind, name)}
        return parts

    def put_together(parts: dict[str, object]) -> object:
        value = object.__new__(kind)
        for name, each in declared.items():
            if name not in parts:
                _fill(parts, each)
        for name, part in parts.items():
            object.__setattr__(value, name, part)
        return value

    return take_apart, put_together


def _fill(parts: dict[str, object], missing: Field[Any]) -> None:
    """The value of a field that the class did not have when the parts were recorded."""
    if missing.default is not MISSING:
        parts[missing.name] = missing.default
    elif missing.default_factory is not MISSING:
        parts[missing.name] = missing.default_factory()
    elif missing.init:
        raise ValueError(f"its field {missing.name!r} was not recorded and has no default")


def _slots(kind: type) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    return [slots] if isinstance(slots, str) else [name for name in slots if not name.startswith("__")]


def _is_state(kind: type, name: str) -> bool:
    # ``Box[int](1)`` leaves ``__orig_class__`` on the instance; a cached property computes itself again.
    return not name.startswith("__") and not isinstance(getattr(kind, name, None), cached_property)


def _pydantic(kind: Any) -> _Directions:
    # A model's own way to be pickled: https://docs.pydantic.dev/latest/api/base_model/
    def take_apart(value: Any) -> dict[str, object]:
        state = value.__getstate__()
        known = kind.model_fields
        parts = {name: part for name, part in state["__dict__"].items() if name in known}
        given = state["__pydantic_fields_set__"]
        if len(given) < len(parts) or given - parts.keys():
            parts["$set"] = sorted(given)
        for word in ("extra", "private"):  # a RootModel has neither
            if (part := state.get(f"__pydantic_{word}__")) is not None:
                parts[f"${word}"] = part
        return parts

    def put_together(parts: dict[str, Any]) -> object:
        extra, private = parts.pop("$extra", None), parts.pop("$private", None)
        given = set(parts.pop("$set", parts))
        for name, each in kind.model_fields.items():
            if name not in parts:
                if each.is_required():
                    raise ValueError(f"its field {name!r} was not recorded and has no default")
                parts[name] = each.get_default(call_default_factory=True, validated_data=parts)
        value = kind.__new__(kind)
        value.__setstate__(
            {
                "__dict__": {name: parts[name] for name in kind.model_fields},
                "__pydantic_extra__": extra,
                "__pydantic_fields_set__": given,
                "__pydantic_private__": private,
            }
        )
        return value

    return take_apart, put_together
