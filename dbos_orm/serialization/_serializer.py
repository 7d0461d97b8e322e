"""What a serializer is."""

from __future__ import annotations

from typing import Protocol


class Serializer(Protocol):
    """Turns a value into text and back; chosen per application, and named in every row it wrote.

    ``loads(dumps(value))`` is equal to ``value`` and of the same type, or ``dumps`` raises. The text is
    valid JSON (a JSON string will do) without a NUL character: payload columns are of the type JSON.
    An application keeps every serializer whose rows it still wants to read.
    """

    @property
    def name(self) -> str:
        """What rows call it; never reused for another format."""
        ...

    def dumps(self, value: object) -> str:
        """Write ``value``; a ``SerializationError`` has a path that begins with the word "value"."""
        ...

    def loads(self, payload: str) -> object:
        """Read what ``dumps`` wrote."""
        ...
