"""Hints that work is waiting: everything is correct without them, and slower."""

from __future__ import annotations

from collections.abc import Callable


class Hints:
    """Tells whoever may run a new workflow that it waits: this process at once, others where the database can."""

    def __init__(self) -> None:
        self.dispatcher: Callable[[str, str, bool], bool] | None = None
        """Of a launch: takes (queue, workflow name, whether it is still being committed); True if it will look."""

    def announce(self, queue: str, name: str, *, is_expected: bool = False) -> None:
        """Say that a workflow of this name waits in this queue, or (``is_expected``) will when it is committed."""
        if self.dispatcher is not None:
            self.dispatcher(queue, name, is_expected)
