"""Group commit: what many runs record at the same time shares one transaction.

The caller who finds no flush running becomes the leader and writes everything that is pending; the others
wait for that commit. One caller alone pays no thread switch, a hundred pay one commit. When the
leader is done it wakes its followers and passes the lead to one of those who came meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.engine import Connection

from dbos_orm._context import Run
from dbos_orm._dialects import Fault
from dbos_orm._drivers.gateway import Gateway, Patience, begun
from dbos_orm._flows.effects import WriteResult
from dbos_orm._store import checkpoints
from dbos_orm._store.entries import Entry
from dbos_orm.config import Config


class Ticket:
    """One entry on its way into the database, and who waits for it."""

    __slots__ = ("entry", "error", "future", "is_leader", "result", "run", "wake")

    def __init__(self, entry: Entry, run: Run | None) -> None:
        self.entry = entry
        self.run = run
        self.result = WriteResult.STALLED
        self.error: BaseException | None = None
        self.is_leader = False
        self.future: asyncio.Future[None] | None = None
        # A bare lock is the cheapest thing in Python that one thread can wait for and another set.
        self.wake: threading.Lock | None = None

    def outcome(self) -> WriteResult:
        """What became of the entry, or the error that kept it from being written."""
        if self.error is not None:
            raise self.error
        return self.result


class Committer:
    """Writes entries in batches over one connection of its own."""

    def __init__(self, gateway: Gateway, config: Config) -> None:
        self._gateway = gateway
        self._dialect = gateway.dialect
        self._batch_size: Final = config.batch_size
        self._lock = threading.Lock()
        self._pending: deque[Ticket] = deque()
        self._is_flushing = False
        self._connection: Connection | None = None

    def write(self, entry: Entry, run: Run | None) -> WriteResult:
        """Write an entry together with whatever others write now, and wait for the commit."""
        ticket = Ticket(entry, run)
        ticket.wake = threading.Lock()
        ticket.wake.acquire()
        if self._line_up(ticket):
            if self._gateway.has_service_loop:
                self._gateway.start(self._lead_while_pending)
                ticket.wake.acquire()
            else:
                self._lead()
        else:
            ticket.wake.acquire()
            if ticket.is_leader:
                self._lead()
        return ticket.outcome()

    async def write_async(self, entry: Entry, run: Run | None) -> WriteResult:
        """``write`` for a coroutine: the flush happens on the service loop."""
        ticket = Ticket(entry, run)
        ticket.future = asyncio.get_running_loop().create_future()
        if self._line_up(ticket):
            self._gateway.start(self._lead_while_pending)
        # Shielded by being nobody's to cancel: the write goes on, its ticket just has no reader any more.
        await ticket.future
        return ticket.outcome()

    def _line_up(self, ticket: Ticket) -> bool:
        """Add a ticket; True if nobody flushes, so that whoever added it must see to that."""
        with self._lock:
            self._pending.append(ticket)
            is_first, self._is_flushing = not self._is_flushing, True
        return is_first

    def _lead_while_pending(self) -> None:
        while self._lead(passes_on=False):
            pass

    def _lead(self, *, passes_on: bool = True) -> bool:
        """Flush one batch, wake those who wait for it, and pass the lead on; True if more is pending."""
        with self._lock:
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), self._batch_size))]
        try:
            self._flush(batch)
        except BaseException:
            # Only this thread was interrupted: the others' entries count as stalled, and are written alone.
            self._drop_connection()
            raise
        finally:
            with self._lock:
                following = self._pending[0] if self._pending else None
                self._is_flushing = following is not None
            if following is not None and passes_on:
                following.is_leader = True
                batch.insert(0, following)  # its flush waits for the disk while the others go on in Python
            _wake(batch)
        return following is not None

    def close(self) -> None:
        """Give the connection back; from within ``blocking``, when nobody writes any more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """Start anew in a forked child, where neither the threads nor the connection exist."""
        self._lock = threading.Lock()
        self._pending.clear()
        self._is_flushing = False
        self._connection = None

    def _flush(self, batch: Sequence[Ticket]) -> None:
        """Write a batch, again and again while the database is away, and note what became of each entry."""
        patience: Patience | None = None
        remaining = list(batch)
        while remaining:
            try:
                written = self._write([ticket.entry for ticket in remaining])
            except Exception as error:
                self._drop_connection()
                if self._dialect.fault(error) is not Fault.DISCONNECTED:
                    return
                patience = patience or self._gateway.new_patience()
                remaining = self._still_waiting(remaining, patience, error)
            else:
                for index, ticket in enumerate(remaining):
                    ticket.result = WriteResult.WRITTEN if index in written else WriteResult.REFUSED
                return

    def _still_waiting(self, batch: Sequence[Ticket], patience: Patience, error: Exception) -> list[Ticket]:
        """After a pause, the tickets of those who may still wait for the database."""
        left = []
        for ticket in batch:
            try:
                patience.require(error, ticket.run)
                left.append(ticket)
            except BaseException as ended:
                ticket.error = ended
        if left:
            self._gateway.pause(patience.next_pause())
        return left

    def _write(self, entries: Sequence[Entry]) -> set[int]:
        if self._connection is None:
            self._connection = self._gateway.engine.connect()
        connection, dialect = self._connection, self._dialect
        must_bound = dialect.lock_bound is None and dialect.locks_rows and checkpoints.may_wait_for_keys(entries)
        if not must_bound and checkpoints.is_single_statement(dialect, entries):
            with self._gateway.writing():
                return checkpoints.write(connection, dialect, entries)
        with self._gateway.writing(), begun(connection, dialect):
            if must_bound:
                dialect.bound_locks(connection)
            return checkpoints.write(connection, dialect, entries)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _wake(tickets: Sequence[Ticket]) -> None:
    """Wake everyone who waits; each event loop is interrupted once, however many of its coroutines wait."""
    futures: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for ticket in tickets:
        if ticket.wake is not None:
            ticket.wake.release()
        elif ticket.future is not None:
            futures.setdefault(ticket.future.get_loop(), []).append(ticket.future)
    for loop, waiting in futures.items():
        try:
            loop.call_soon_threadsafe(_resolve, waiting)
        except RuntimeError:
            # The loop was closed while its writes were under way: nobody is left to tell.
            continue


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def write_alone(gateway: Gateway, entry: Entry) -> WriteResult:
    """Write one entry in a transaction of its own that waits a moment for locks; from within ``blocking``."""

    def verb(connection: Connection) -> WriteResult:
        gateway.dialect.bound_locks(connection)
        written = checkpoints.write(connection, gateway.dialect, [entry], skip_locked=False)
        return WriteResult.WRITTEN if written else WriteResult.REFUSED

    return _unless_in_conflict(gateway, verb)


def probe(gateway: Gateway, entry: Entry) -> WriteResult:
    """``write_alone``, taken back: it only tells whether the entry could be written."""

    def verb(connection: Connection) -> WriteResult:
        gateway.dialect.bound_locks(connection)
        written = checkpoints.write(connection, gateway.dialect, [entry], skip_locked=False)
        raise _TakenBackError(WriteResult.WRITTEN if written else WriteResult.REFUSED)

    try:
        return _unless_in_conflict(gateway, verb)
    except _TakenBackError as taken_back:
        return taken_back.result


def _unless_in_conflict(gateway: Gateway, verb: Any) -> WriteResult:
    try:
        result: WriteResult = gateway.transaction(verb)
    except Exception as error:
        if isinstance(error, _TakenBackError) or gateway.dialect.fault(error) is not Fault.CONFLICT:
            raise
        return WriteResult.STALLED
    return result


class _TakenBackError(Exception):
    """Rolls a transaction back whose only purpose was the answer."""

    def __init__(self, result: WriteResult) -> None:
        self.result = result
