"""Hints that work is waiting: everything is correct without them, and slower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dbos_orm._clock import steady_seconds
from dbos_orm._drivers.notices import Notice, Waiting
from dbos_orm._drivers.telling import Telling

_EXPECTED_SECONDS: Final = 0.01
"""A commit that takes longer than this is found without a hint."""
_KNOWN_SECONDS: Final = 1.0


class Hints:
    """Tells whoever may run a new workflow that it waits: this process at once, others where the database can.

    ``telling`` is None where processes cannot tell one another: they look at the database itself, or again and again.
    """

    def __init__(self, telling: Telling | None = None) -> None:
        self.dispatcher: Callable[[str, str, bool], bool] | None = None
        """Of a launch: takes (queue, workflow name, whether it is still being committed); True if it will look."""
        self.look_everywhere: Callable[[], None] | None = None
        """Of a launch: looks into every queue, because nobody knows which; returns at once."""
        self.is_listening = False
        """Whether this process hears of others' work at once, and not only by the tick."""
        self.telling = telling
        self._known: dict[Waiting, float] = {}

    def announce(self, queue: str, name: str, *, is_expected: bool = False) -> None:
        """Say that a workflow of this name waits in this queue, or (``is_expected``) will when it is committed."""
        self._known.pop((queue, name), None)
        if self.dispatcher is not None and self.dispatcher(queue, name, is_expected):
            return
        if self.telling is not None:
            self.telling.tell(queue, name, after=_EXPECTED_SECONDS if is_expected else 0.0)

    def tell_others(self, queue: str, name: str, *, is_new: bool = False) -> None:
        """Say to other processes alone that a workflow waits which this one does not take now.

        What was heard from others is not passed on: everybody has heard it, and processes without a free
        slot would go on telling one another. ``is_new``: it has only just begun to wait, so nobody has.
        """
        heard = None if is_new else self._known.get((queue, name))
        if heard is not None and steady_seconds() - heard < _KNOWN_SECONDS:
            return
        if self.telling is not None:
            self.telling.tell(queue, name)

    def heard(self, notice: Notice) -> None:
        """Act on what another process has told."""
        if notice.waiting is None:
            return
        if not notice.waiting or self.dispatcher is None:
            if self.look_everywhere is not None:
                self.look_everywhere()
            return
        now = steady_seconds()
        for queue, name in notice.waiting:
            self._known[queue, name] = now
            self.dispatcher(queue, name, False)
