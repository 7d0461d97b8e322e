"""The classes that an application lets its payloads construct."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar, is_typeddict

from dbos_orm import errors
from dbos_orm.errors import ConfigurationError
from dbos_orm.serialization._annotations import (
    Annotation,
    annotations_of,
    classes_in,
    errors_named_by,
)
from dbos_orm.serialization._shapes import Shape, find_shape, is_mapped, name_of
from dbos_orm.serialization._tags import ALWAYS_KNOWN

T = TypeVar("T")

logger = logging.getLogger("dbos_orm")


class TypeRegistry:
    """The classes of one application beside the built-in ones, by class and by recorded name.

    Classes come from ``register``, and from the functions of the application, whose annotations are
    read when a class is first asked for that is not known. Registering is idempotent, and safe while other
    threads encode and decode. A class that was defined anew under the same name replaces the former one.
    """

    def __init__(self) -> None:
        self._by_class: dict[type, Shape] = {}
        self._by_name: dict[str, Shape] = {}
        self._errors: dict[str, type[BaseException]] = dict(_known_errors())
        self._error_names: dict[type[BaseException], str] = {}
        self._typed_dicts: set[type] = set()
        self._raising: list[Callable[..., object]] = []
        self._unread: list[Callable[..., object] | type] = []
        self._unresolved: list[tuple[Annotation, str]] = []

    def register(
        self,
        kind: type[T],
        /,
        *,
        name: str | None = None,
        encode: Callable[[T], object] | None = None,
        decode: Callable[[Any], T] | None = None,
        former_names: Sequence[str] = (),
    ) -> type[T]:
        """Let values of this class be recorded and read; also a class decorator.

        Dataclasses, NamedTuples, enums, pydantic models and exceptions need nothing else, and what their
        fields are annotated with is registered too. For any other class ``encode`` gives something that can
        be recorded, and ``decode`` makes an equal value of it. Rows hold ``name``, by default
        "module:qualified name"; after a move ``former_names`` keeps old rows readable.

        Raises:
            ConfigurationError: the class is of no such kind, or only one of the functions was given.
        """
        recorded_as = name or name_of(kind)
        if ":" not in recorded_as:
            raise ConfigurationError("name", recorded_as, 'a name with a colon, such as "shop:Money"')
        if issubclass(kind, BaseException):
            for known_as in (recorded_as, *former_names):
                self._errors[known_as] = kind
            self._error_names[kind] = recorded_as
            return kind
        if kind in ALWAYS_KNOWN:
            raise ConfigurationError("type", kind, "a class that is not recorded by itself anyway")
        if encode is not None and decode is not None:
            shape: Shape | None = Shape(kind, recorded_as, encode, decode)
        elif encode is None and decode is None:
            shape = find_shape(kind, recorded_as)
        else:
            raise ConfigurationError("encode and decode", (encode, decode), "both functions, or neither")
        if shape is None:
            raise _unsuitable(kind)
        self._add(shape, former_names)
        return kind

    def register_annotations(self, function: Callable[..., object], /) -> None:
        """Register the classes in the function's annotations, as soon as one of them is needed.

        They are found in generics, unions, aliases, and in the fields of what is found. A name that
        cannot be resolved is passed over, and tried again once it exists.
        """
        self._unread.append(function)

    def register_function(self, function: Callable[..., object], /) -> None:
        """Register what the function speaks of: its annotations, and the exceptions that its code names.

        A workflow that says ``except OutOfStock`` catches a recorded OutOfStock as it caught the first one.
        """
        self._raising.append(function)
        self._unread.append(function)

    def shape_of(self, kind: type) -> Shape | None:
        """How values of exactly this class are recorded, or None."""
        if kind not in self._by_class:
            self._resolve()
        return self._by_class.get(kind)

    def shape_named(self, name: str) -> Shape | None:
        """How values recorded under this name are read, or None."""
        if name not in self._by_name:
            self._resolve()
        return self._by_name.get(name)

    def error_named(self, name: str) -> type[BaseException] | None:
        """The exception class recorded under this name, or None."""
        if name not in self._errors:
            self._resolve()
        return self._errors.get(name)

    def name_of_error(self, kind: type[BaseException]) -> str:
        """What an exception class is called in records, registered or not; a built-in one has no module."""
        if kind.__module__ == builtins.__name__:
            return kind.__name__
        return self._error_names.get(kind) or name_of(kind)

    def _add(self, shape: Shape, former_names: Sequence[str] = ()) -> None:
        replaced = self._by_name.get(shape.name)
        if replaced is not None and replaced.kind is not shape.kind:
            # Values of the former class would come back as the new one: they are refused from now on.
            self._by_class.pop(replaced.kind, None)
        self._unread.append(shape.kind)
        self._by_class[shape.kind] = shape
        for known_as in (shape.name, *former_names):
            self._by_name[known_as] = shape

    # Threads may resolve at once: all is idempotent, and nothing leaves a list before its work is done.

    def _resolve(self) -> None:
        for function in tuple(self._raising):
            for error in errors_named_by(function):
                self._errors.setdefault(name_of(error), error)
            _discard(self._raising, function)
        for waiting in tuple(self._unresolved):
            annotation, missing = waiting
            if annotation.has_name(missing):
                self._register_annotation(annotation)
                _discard(self._unresolved, waiting)
        while self._unread:
            source = self._unread[0]
            for annotation in annotations_of(source):
                self._register_annotation(annotation)
            _discard(self._unread, source)

    def _register_annotation(self, annotation: Annotation) -> None:
        try:
            meaning = annotation.resolve()
        except NameError as error:  # a name for type checkers only, or not defined yet
            self._unresolved.append((annotation, error.name or ""))
            return
        except Exception:
            logger.debug("annotation %r cannot be evaluated", annotation.written, exc_info=True)
            return
        for kind in classes_in(meaning):
            if issubclass(kind, BaseException):
                self._errors.setdefault(name_of(kind), kind)
            elif is_typeddict(kind) and kind not in self._typed_dicts:
                self._typed_dicts.add(kind)
                self._unread.append(kind)
            elif kind not in self._by_class and (shape := find_shape(kind, name_of(kind))):
                self._add(shape)


def _known_errors() -> Iterator[tuple[str, type[BaseException]]]:
    for kind in vars(builtins).values():
        if isinstance(kind, type) and issubclass(kind, BaseException):
            yield kind.__name__, kind
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.DBOSError):
            yield name_of(kind), kind


def _discard(items: list[T], item: T) -> None:
    with suppress(ValueError):  # another thread was faster
        items.remove(item)


def _unsuitable(kind: type) -> ConfigurationError:
    if is_mapped(kind):
        return ConfigurationError(
            "type",
            kind,
            "a class whose values can leave their Session",
            "record the primary key of a mapped class",
        )
    return ConfigurationError(
        "type",
        kind,
        "a dataclass, NamedTuple, enum, pydantic model or exception",
        "give register() the functions encode= and decode= for any other class",
    )
