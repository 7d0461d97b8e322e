"""One walk over a value, which answers what ``json`` can write.

The walk returns the very object where nothing in it needs a tag, so that the usual list, dict or text
costs no copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from dbos_orm.serialization._advice import advice_for
from dbos_orm.serialization._refusal import RefusedError, key_segment
from dbos_orm.serialization._shapes import Shape
from dbos_orm.serialization._tags import (
    GREATEST_PLAIN,
    LEAST_PLAIN,
    LEAVES,
    Leaf,
    is_plain_text,
    write_float,
    write_int,
    write_text,
)
from dbos_orm.serialization._types import TypeRegistry

DEEPEST = 200
"""Levels of JSON text. Each costs a level of the interpreter's stack, which has 1,000 by default."""

_Writer = Callable[[Any, int], object]


class Encoder:
    """Makes values of the built-in and the registered types ready for ``json``.

    Containers are looked into for exactly their own type: a subclass would not come back as one.
    """

    def __init__(self, types: TypeRegistry, dumps: Callable[[object], str]) -> None:
        self._types = types
        self._dumps = dumps
        self._writers: dict[type, _Writer] = {
            type(None): _as_is,
            bool: _as_is,
            int: _int,
            float: _float,
            str: _text,
            list: self._list,
            tuple: self._tuple,
            dict: self._dict,
            set: self._set,
            frozenset: self._frozenset,
            **{kind: _leaf_writer(leaf) for kind, leaf in LEAVES.items()},
        }

    def json_ready(self, value: object, depth: int = 0) -> object:
        """The value as ``json`` can write it.

        Raises:
            RefusedError: something in it would not come back equal and of the same type.
        """
        writer = self._writers.get(type(value)) or self._registered
        return writer(value, depth)

    def _list(self, value: Any, depth: int) -> Any:
        _check_depth(value, depth)
        ready, writers, index = value, self._writers, 0
        try:
            for index, item in enumerate(value):
                kind = type(item)
                # The usual leaves need no call.
                if kind is str:
                    if item.isascii():
                        continue
                elif kind is int:
                    if LEAST_PLAIN < item < GREATEST_PLAIN:
                        continue
                elif item is None or kind is bool:
                    continue
                written = (writers.get(kind) or self._registered)(item, depth + 1)
                if written is not item:
                    if ready is value:
                        ready = list(value)
                    ready[index] = written
        except RefusedError as refused:
            refused.inside(value, f"[{index}]")
            raise
        return ready

    def _dict(self, value: dict[Any, Any], depth: int) -> object:
        _check_depth(value, depth)
        if not _has_plain_keys(value):
            return self._pairs(value, depth)
        ready, writers, key = value, self._writers, ""
        try:
            for key, item in value.items():
                kind = type(item)
                if kind is str:
                    if item.isascii():
                        continue
                elif kind is int:
                    if LEAST_PLAIN < item < GREATEST_PLAIN:
                        continue
                elif item is None or kind is bool:
                    continue
                written = (writers.get(kind) or self._registered)(item, depth + 1)
                if written is not item:
                    if ready is value:
                        ready = value.copy()
                    ready[key] = written
        except RefusedError as refused:
            refused.inside(value, key_segment(key))
            raise
        return ready

    def _pairs(self, value: dict[Any, Any], depth: int) -> object:
        pairs: list[list[object]] = []
        segment = ""
        try:
            for key, item in value.items():
                segment = f".keys()[{len(pairs)}]"
                written_key = self.json_ready(key, depth + 3)
                segment = key_segment(key)
                pairs.append([written_key, self.json_ready(item, depth + 3)])
        except RefusedError as refused:
            refused.inside(value, segment)
            raise
        return {"$dict": pairs}

    def _tuple(self, value: tuple[Any, ...], depth: int) -> object:
        return {"$tuple": self._list(value, depth + 1)}

    def _set(self, value: set[Any], depth: int) -> object:
        return {"$set": self._members(value, depth)}

    def _frozenset(self, value: frozenset[Any], depth: int) -> object:
        return {"$frozenset": self._members(value, depth)}

    def _members(self, value: Iterable[Any], depth: int) -> list[object]:
        # The order of a set differs from process to process; the recorded text must not.
        try:
            members = [self.json_ready(member, depth + 2) for member in value]
        except RefusedError as refused:
            refused.inside(value, "{...}")
            raise
        return [member for _, member in sorted(((self._dumps(m), m) for m in members), key=itemgetter(0))]

    def _registered(self, value: object, depth: int) -> object:
        shape = self._types.shape_of(type(value))
        if shape is None:
            raise RefusedError(type(value).__qualname__, advice_for(value))
        _check_depth(value, depth)
        try:
            return {shape.tag: self.json_ready(_parts(shape, value), depth + 1)}
        except RefusedError as refused:
            refused.inside(value, "")
            raise


def _has_plain_keys(value: dict[Any, Any]) -> bool:
    """Whether JSON gives exactly these keys back, and nothing takes the dict for a tag."""
    for key in value:
        if type(key) is not str or not (key.isascii() or is_plain_text(key)):
            return False
    return len(value) != 1 or not next(iter(value)).startswith("$")


def _parts(shape: Shape, value: object) -> object:
    try:
        return shape.take_apart(value)
    except Exception as error:
        advice = f"the function that encodes it raised {type(error).__name__}: {error}"
        raise RefusedError(type(value).__qualname__, advice) from error


def _leaf_writer(leaf: Leaf) -> _Writer:
    tag, write = leaf.tag, leaf.write
    return lambda value, _depth: {tag: write(value)}


def _as_is(value: object, _depth: int) -> object:
    return value


def _text(value: str, _depth: int) -> object:
    return value if value.isascii() or is_plain_text(value) else write_text(value)


def _int(value: int, _depth: int) -> object:
    return value if LEAST_PLAIN < value < GREATEST_PLAIN else write_int(value)


def _float(value: float, _depth: int) -> object:
    return write_float(value)


def _check_depth(value: object, depth: int) -> None:
    if depth > DEEPEST:
        raise RefusedError(
            type(value).__qualname__,
            f"it is nested deeper than {DEEPEST} levels; make it flatter, or store it and pass its key",
        )
