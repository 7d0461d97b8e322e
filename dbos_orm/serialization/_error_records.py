"""Errors as plain records: what a reader of the row wants to see, and what brings the error back.

{"type": "shop.stock:OutOfStock", "ancestors": ["LookupError"], "message": "no 'tea' left", "args": ["tea"],
 "attributes": {"item": "tea"}, "errors": {}, "notes": [], "traceback": "Traceback (most ..."}
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dbos_orm.errors import RemoteError, SerializationError
from dbos_orm.serialization._remote import as_remote
from dbos_orm.serialization._types import TypeRegistry

_Record = dict[str, Any]

_LONGEST_TRACEBACK = 16_384
_DEEPEST = 5

_ATTRIBUTES_OF_BUILTINS: dict[type[BaseException], tuple[str, ...]] = {
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
}


class RaisedElsewhereError(Exception):
    """Stands as the ``__cause__`` of an error that came from the database, and prints where it was raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"recorded with the error\n{self.text}"


class ErrorRecords:
    """Makes records of errors, and errors of records.

    ``accepts`` tells whether a value can be recorded. Making a record never fails: what cannot be recorded
    of an error is left out, and without its arguments it comes back as a ``RemoteError``.
    """

    def __init__(self, types: TypeRegistry, accepts: Callable[[object], bool]) -> None:
        self._types = types
        self._accepts = accepts

    def record(self, error: BaseException, depth: int = 0) -> _Record:
        """What is kept of an error: type, message, arguments, attributes, notes and traceback text.

        The text includes the chain of causes. A ``RemoteError`` is recorded as what it stands for.
        """
        kind = type(error)
        record: _Record = {"type": self._types.name_of_error(kind), "message": _message(error)}
        if kind.__module__ != "builtins":
            record["ancestors"] = [
                self._types.name_of_error(base)
                for base in kind.__mro__[1:]
                if issubclass(base, Exception) and base is not Exception and not issubclass(RemoteError, base)
            ]
        if isinstance(error, RemoteError):
            record |= {"type": error.type_name, "message": error.message}
        else:
            record |= self._contents(error, depth)
        notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
        text = _traceback_text(error) or getattr(error, "traceback_text", None)
        return record | ({"notes": notes} if notes else {}) | ({"traceback": text} if text else {})

    def restore(self, record: object) -> BaseException:
        """The error of a record: of its type where that is registered, else a ``RemoteError``.

        The traceback text is the ``text`` of its ``__cause__``, so that it prints.

        Raises:
            SerializationError: this is no record of an error.
        """
        if not isinstance(record, dict) or not isinstance(record.get("type"), str):
            raise SerializationError("payload", type(record).__qualname__, "expected the record of an error")
        error = self._original(record) or self._remote(record)
        if text := record.get("traceback"):
            _set(error, "__cause__", RaisedElsewhereError(text))
        return error

    def _contents(self, error: BaseException, depth: int) -> _Record:
        contents: _Record = {}
        args: list[object] = list(_arguments(error))
        if isinstance(error, BaseExceptionGroup):
            args = [error.message]
            contents["group"] = [self.record(inner, depth + 1) for inner in error.exceptions]
        if self._accepts(args):
            contents["args"] = args
        attributes: _Record = {}
        errors: _Record = {}
        for name, value in _attributes(error).items():
            if _is_errors(value):
                if depth < _DEEPEST:
                    errors[name] = self._nested(value, depth + 1)
            elif self._accepts(value):
                attributes[name] = value
        return contents | {key: part for key, part in (("attributes", attributes), ("errors", errors)) if part}

    def _nested(self, value: Any, depth: int) -> object:
        if isinstance(value, BaseException):
            return self.record(value, depth)
        return [self.record(error, depth) for error in value]

    def _original(self, record: _Record) -> BaseException | None:
        kind = self._types.error_named(record["type"])
        if kind is None or "args" not in record:
            return None
        with suppress(Exception):
            error = self._construct(kind, record)
            str(error)  # what was left out may be what the text is made of
            return error
        return None

    def _construct(self, kind: type[BaseException], record: _Record) -> BaseException:
        # Not by calling the class: a constructor of the user takes other arguments than ``args``. The
        # built-in base's constructor sets what is no attribute in Python, such as errno.
        args = tuple(record["args"])
        if "group" in record:
            args = (*args, [self.restore(inner) for inner in record["group"]])
        error: BaseException = kind.__new__(kind, *args)
        builtin: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
        builtin.__init__(error, *args)
        for name, value in record.get("attributes", {}).items():
            _set(error, name, value)
        for name, inner in record.get("errors", {}).items():
            value = [self.restore(one) for one in inner] if isinstance(inner, list) else self.restore(inner)
            _set(error, name, value)
        if notes := record.get("notes"):
            _set(error, "__notes__", notes)
        return error

    def _remote(self, record: _Record) -> RemoteError:
        known = (self._types.error_named(name) for name in (record["type"], *record.get("ancestors", ())))
        plain = RemoteError(record["type"], record.get("message", ""), record.get("traceback"), record.get("notes", ()))
        return as_remote(plain, next((kind for kind in known if kind is not None), None))


def outline(record: _Record) -> _Record:
    """The texts of a record alone, which always can be recorded; it comes back as a ``RemoteError``."""
    texts = ("type", "ancestors", "message", "notes", "traceback")
    return {name: record[name] for name in texts if name in record}


def _set(error: BaseException, name: str, value: object) -> None:
    # Past what the class does about attributes: a frozen dataclass refuses them.
    BaseException.__setattr__(error, name, value)


def _message(error: BaseException) -> str:
    with suppress(Exception):
        return str(error)
    return "(asking the error for its text failed)"


def _arguments(error: BaseException) -> tuple[object, ...]:
    # ``args`` of an OSError lacks the file names.
    reduced = OSError.__reduce__(error) if isinstance(error, OSError) else None
    return tuple(reduced[1]) if isinstance(reduced, tuple) else error.args


def _attributes(error: BaseException) -> dict[str, object]:
    attributes = {name: value for name, value in vars(error).items() if not name.startswith("__")}
    for kind, names in _ATTRIBUTES_OF_BUILTINS.items():
        if isinstance(error, kind):
            attributes |= {name: getattr(error, name) for name in names if getattr(error, name) is not None}
    return attributes


def _is_errors(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, BaseException) for item in value)
    return isinstance(value, BaseException)


def _traceback_text(error: BaseException) -> str:
    if error.__traceback__ is None and error.__cause__ is None and error.__context__ is None:
        return ""
    text = "".join(traceback.format_exception(error))
    if len(text) <= _LONGEST_TRACEBACK:
        return text
    part = _LONGEST_TRACEBACK // 2
    return f"{text[:part]}\n  ... {len(text) - 2 * part} characters left out ...\n{text[-part:]}"
