"""A refused value on its way up to whoever can say where it was found."""

from __future__ import annotations

from dbos_orm.errors import SerializationError

ROOT = "value"
"""The first word of a path whose root only the caller knows; the codec replaces it."""

_LONGEST_PATH = 12


class RefusedError(Exception):
    """Collects the path while it unwinds, so that a value which is accepted pays nothing for it."""

    def __init__(self, type_name: str, advice: str) -> None:
        super().__init__(type_name, advice)
        self.type_name, self.advice = type_name, advice
        self._segments: list[str] = []
        self._containers: dict[int, object] = {}  # holds them, so that no identity is used twice
        self._is_cyclic = False

    def inside(self, container: object, segment: str) -> None:
        """Note that the refusal came from ``segment`` of ``container``."""
        self._is_cyclic = self._is_cyclic or id(container) in self._containers
        self._containers[id(container)] = container
        self._segments.append(segment)

    def to_error(self) -> SerializationError:
        """The error for the reader, with its path from the root."""
        segments = [segment for segment in reversed(self._segments) if segment]
        if len(segments) > _LONGEST_PATH:
            segments = [*segments[:_LONGEST_PATH], "..."]
        advice = "it contains itself; cut the circle, for example with an ID" if self._is_cyclic else self.advice
        return SerializationError(ROOT + "".join(segments), self.type_name, advice)


def key_segment(key: object) -> str:
    """The segment for one entry of a dict: ``.price`` where that reads well, else ``['unit price']``."""
    return f".{key}" if type(key) is str and key.isidentifier() else f"[{key!r}]"
