"""What processes of one application tell one another: the text of a notice."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from dbos_orm._store.notices import LONGEST_NOTICE_BYTES

Waiting: TypeAlias = tuple[str, str]
"""A queue, and the name of a workflow that waits in it."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice. ``sender`` names a process; ``proof`` comes back to who sent it.

    ``waiting`` is None where nothing was said of it, and empty if anything may wait anywhere.
    """

    sender: str
    waiting: frozenset[Waiting] | None = None
    proof: str | None = None


def encode_notice(sender: str, *, waiting: Iterable[Waiting] | None = None, proof: str | None = None) -> str:
    """The text of a notice; one that would be too long says of nothing in particular that it waits."""
    said: dict[str, object] = {"s": sender}
    if proof is not None:
        said["p"] = proof
    if waiting is not None:
        said["q"] = [list(pair) for pair in waiting]
        if len(text := _text(said)) <= LONGEST_NOTICE_BYTES:
            return text
        said["q"] = []
    return _text(said)


def decode_notice(text: str) -> Notice | None:
    """A notice from its text; None for what somebody else put on the channel. Unknown kinds are left out."""
    try:
        said = json.loads(text)
        waiting = said.get("q")
        pairs = None if waiting is None else frozenset((str(queue), str(name)) for queue, name in waiting)
        return Notice(str(said["s"]), pairs, said.get("p"))
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def _text(said: dict[str, object]) -> str:
    # Only ASCII, so that a character is a byte.
    return json.dumps(said, separators=(",", ":"))
