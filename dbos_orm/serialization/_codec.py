"""What the rest of the library encodes and decodes with."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

from dbos_orm.errors import SerializationError
from dbos_orm.serialization._error_records import ErrorRecords, outline
from dbos_orm.serialization._json import JSONSerializer
from dbos_orm.serialization._refusal import ROOT
from dbos_orm.serialization._serializer import Serializer
from dbos_orm.serialization._types import TypeRegistry

_DIGEST_LENGTH: Final = 16
"""Hexadecimal digits: 64 bits, of which one run compares a few with each other."""


class Codec:
    """Writes with one serializer, and reads with the one that a row names.

    JSON can always be read; pickle only when it was given. ``types`` are the classes that payloads may
    construct.
    """

    def __init__(
        self, default: Serializer, others: Sequence[Serializer] = (), *, types: TypeRegistry | None = None
    ) -> None:
        given = [default, *others]
        own = next((serializer.types for serializer in given if isinstance(serializer, JSONSerializer)), None)
        self.types: TypeRegistry = types or own or TypeRegistry()
        self.name: str = default.name
        self._dumps = default.dumps
        self._json = JSONSerializer(self.types)
        self._loads = {serializer.name: serializer.loads for serializer in (self._json, *given)}
        self._errors = ErrorRecords(self.types, self._accepts)

    def encode(self, value: object, *, root: str) -> str:
        """Write a value; what comes out is JSON text in ASCII, or what the application's serializer makes.

        ``root`` is the first word of the path in an error: "result", "message".

        Raises:
            SerializationError: the value would not come back equal and of the same type.
        """
        try:
            return self._dumps(value)
        except SerializationError as error:
            raise _rooted(error, root) from error.__cause__
        except Exception as error:
            advice = f"serializer {self.name!r} cannot write it: {type(error).__name__}: {error}"
            raise SerializationError(root, type(value).__qualname__, advice) from error

    def decode(self, payload: str, serializer: str) -> object:
        """Read a value that the named serializer wrote.

        Raises:
            SerializationError: the serializer is not known here, or cannot read this payload.
        """
        loads = self._loads.get(serializer)
        if loads is None:
            known = ", ".join(map(repr, self._loads))
            advice = f"known: {known}; give this application the serializer that wrote the row"
            raise SerializationError("payload", f"serializer {serializer!r}", advice)
        try:
            return loads(payload)
        except SerializationError:
            raise
        except Exception as error:
            advice = f"serializer {serializer!r} cannot read it: {type(error).__name__}: {error}"
            raise SerializationError("payload", "text", advice) from error

    def encode_error(self, error: BaseException) -> str:
        """Write an error; never fails because of what the error holds.

        Type, message, arguments, notes, traceback text and those attributes that can be recorded are kept.
        A serializer that takes the exception itself (pickle) keeps all of it.
        """
        record = self._errors.record(error)
        if type(self._read_back(error)) is type(error):
            record["exception"] = error
        if not self._accepts(record):
            # Each part can be recorded, but all of them are nested too deeply.
            record = outline(record)
        return self._dumps(record)

    def decode_error(self, payload: str, serializer: str) -> BaseException:
        """Read an error: of its own type where that is built in or registered, else a ``RemoteError``.

        A ``RemoteError`` is an instance of the nearest known ancestor of the original type too. The text
        of the original traceback prints as its cause.

        Raises:
            SerializationError: the payload cannot be read, or is no error.
        """
        record = self.decode(payload, serializer)
        restored = self._errors.restore(record)
        exception = record.get("exception") if isinstance(record, dict) else None
        if isinstance(exception, BaseException):
            exception.__cause__ = restored.__cause__
            return exception
        return restored

    def encode_arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, signature: inspect.Signature | None
    ) -> str:
        """Write the arguments of a call.

        With the signature, however the call is spelled, the same arguments are the same text; defaults
        are not written. A path names the parameter: ``arguments.order.price``.

        Raises:
            TypeError: the signature does not take these arguments.
            SerializationError: one of them would not come back equal and of the same type.
        """
        if signature is not None:
            bound = signature.bind(*args, **kwargs)
            args, kwargs = bound.args, bound.kwargs
        try:
            return self.encode({"args": list(args), "kwargs": kwargs}, root="arguments")
        except SerializationError:
            # Once more, one at a time, to name the one that it was.
            for name, argument in _named(args, kwargs, signature):
                self.encode(argument, root=f"arguments{name}")
            raise

    def digest_of_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """A text that is the same for the same arguments in every process; None if they cannot be written.

        From their JSON, whatever the application's serializer is: an encrypting one never writes the same text
        twice, and neither does pickle.
        """
        try:
            text = self._json.dumps({"args": list(args), "kwargs": kwargs})
        except Exception:
            return None
        return sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]

    def decode_arguments(self, payload: str, serializer: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read the arguments of a call.

        Raises:
            SerializationError: the payload cannot be read, or holds something else.
        """
        match self.decode(payload, serializer):
            case {"args": list(args), "kwargs": dict(kwargs)}:
                return tuple(args), kwargs
            case other:
                advice = 'expected {"args": [...], "kwargs": {...}}'
                raise SerializationError("payload", type(other).__qualname__, advice)

    def _accepts(self, value: object) -> bool:
        with suppress(Exception):
            self._dumps(value)
            return True
        return False

    def _read_back(self, value: object) -> object:
        # Many an exception pickles, and then cannot be read.
        with suppress(Exception):
            return self._loads[self.name](self._dumps(value))
        return None


def _rooted(error: SerializationError, root: str) -> SerializationError:
    path = root + error.path.removeprefix(ROOT)
    return SerializationError(path, error.type_name, error.advice)


def _named(
    args: tuple[Any, ...], kwargs: dict[str, Any], signature: inspect.Signature | None
) -> list[tuple[str, object]]:
    positional = [
        f".{parameter.name}"
        for parameter in (signature.parameters.values() if signature else ())
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    rest = [f"[{index}]" for index in range(len(positional), len(args))]
    return [
        *zip([*positional, *rest], args, strict=False),
        *((f".{name}", value) for name, value in kwargs.items()),
    ]
