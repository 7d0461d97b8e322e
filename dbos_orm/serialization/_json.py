"""The default serializer."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii
from typing import Any

from dbos_orm.errors import SerializationError
from dbos_orm.serialization._advice import unknown_type_advice
from dbos_orm.serialization._encoding import DEEPEST, Encoder
from dbos_orm.serialization._refusal import ROOT, RefusedError
from dbos_orm.serialization._tags import READERS, is_plain_text
from dbos_orm.serialization._types import TypeRegistry

# The text is ASCII, so that every database encoding takes it and no NUL is in it; ``DEEPEST`` ends circles.
_write_json = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), check_circular=False).encode
_read_json = json.JSONDecoder().decode


class JSONSerializer:
    """Self-describing JSON: what it writes comes back equal and of the same type, or it refuses to write.

    Dicts keep their order. Equal values of any process give the same text, but for dicts in another
    order. NaN comes back as NaN. An object that occurs twice in a value comes back as two equal ones.

    Reading imports nothing, and calls only constructors of built-in types and what belongs to the classes
    in ``types``, which are put together without their ``__init__``.
    """

    name = "json"

    def __init__(self, types: TypeRegistry) -> None:
        self.types = types
        self._encoder = Encoder(types, _write_json)
        self._decoder = json.JSONDecoder(object_hook=self._read_object)

    def dumps(self, value: object) -> str:
        """Write ``value``.

        Raises:
            SerializationError: something in it would not come back as it is; the path begins with "value".
        """
        if type(value) is str and (value.isascii() or is_plain_text(value)):
            return encode_basestring_ascii(value)
        if value is None:
            return "null"
        try:
            ready = self._encoder.json_ready(value)
            return repr(ready) if type(ready) is int else _write_json(ready)
        except RefusedError as refused:
            raise refused.to_error() from refused.__cause__
        except RecursionError as error:
            raise SerializationError(
                ROOT, type(value).__qualname__, f"the stack has no room for {DEEPEST} levels; make it flatter"
            ) from error

    def loads(self, payload: str) -> object:
        """Read what ``dumps`` wrote.

        Raises:
            SerializationError: the text is no JSON, or names a class that is not registered.
        """
        # Every object that stands for something else has a key that begins with "$".
        read = self._decoder.decode if '"$' in payload else _read_json
        try:
            return read(payload)
        except (ValueError, RecursionError) as error:
            raise SerializationError("payload", "text", f"it cannot be read as JSON: {error}") from error

    def _read_object(self, found: dict[str, Any]) -> object:
        if len(found) != 1:
            return found
        ((tag, payload),) = found.items()
        if not tag.startswith("$"):
            return found
        name = tag[1:]
        reader = READERS.get(tag)
        if reader is None:
            shape = self.types.shape_named(name)
            if shape is None:
                raise SerializationError("payload", name, unknown_type_advice(name))
            reader = shape.put_together
        try:
            return reader(payload)
        except Exception as error:
            raise SerializationError(
                "payload", name, f"it cannot be made of what was recorded: {type(error).__name__}: {error}"
            ) from error
