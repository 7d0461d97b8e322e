"""An entry on its way into the database, and the place where its batch is written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from dbos_orm._context import Run
from dbos_orm._dialects import DirectConnection
from dbos_orm._flows.effects import WriteResult
from dbos_orm._store.entries import Entry


class Lane:
    """A place where one batch at a time is written, over a connection of its own."""

    __slots__ = ("connection",)

    def __init__(self) -> None:
        self.connection: DirectConnection | None = None

    def drop(self) -> None:
        """Throw the connection away: what it is in the middle of is not known."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.drop()


class Ticket:
    """One entry on its way into the database, and who waits for it.

    ``task`` is set on who is to lead: the lane and the batch. ``is_gone``: its thread was interrupted while it
    waited, and can lead nobody. ``following`` is whom its thread wakes when it is woken itself. ``then`` is called
    when it is done, for somebody who does not wait.
    """

    __slots__ = (
        "entry", "error", "following", "future", "is_done", "is_gone", "result", "run", "starts", "task", "then",
        "wake",
    )  # fmt: skip

    def __init__(self, entry: Entry, run: Run | None, starts: Run | None) -> None:
        self.entry = entry
        self.run = run
        self.starts = starts
        self.is_done = False
        self.result = WriteResult.STALLED
        self.error: BaseException | None = None
        self.is_gone = False
        self.task: tuple[Lane, list[Ticket]] | None = None
        self.future: asyncio.Future[None] | None = None
        # A bare lock is the cheapest thing in Python that one thread can wait for and another set.
        self.wake: threading.Lock | None = None
        self.following: Ticket | None = None
        self.then: Callable[[Ticket], None] | None = None

    @property
    def is_awaited_by_thread(self) -> bool:
        """Whether a thread waits for it, which might lead."""
        return self.future is None and self.then is None

    def outcome(self) -> WriteResult:
        """What became of the entry, or the error that kept it from being written."""
        if self.error is not None:
            raise self.error
        return self.result
