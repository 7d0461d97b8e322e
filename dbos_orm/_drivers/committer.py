"""Group commit: what many runs record at the same time shares one transaction.

The caller who finds a lane free (a connection; there is one) becomes its leader and writes at once; who
finds none joins those that wait. A leader who is done takes all that waits as the next
batch and makes one of its members the leader of it. One caller alone pays no thread switch, a hundred pay
a few commits.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

from sqlalchemy.engine import Connection

from dbos_orm._context import Run, logger
from dbos_orm._dialects import Fault
from dbos_orm._drivers.gateway import Gateway, Patience
from dbos_orm._drivers.tickets import Lane, Ticket
from dbos_orm._flows.effects import WriteResult
from dbos_orm._store import checkpoints
from dbos_orm._store.entries import Entry
from dbos_orm.config import Config

_LANES: Final = 1
"""Batches under way at the same time; more were not faster when it was measured on two cores."""


class EntryWriter(Protocol):
    """Writes entries, and gives what became of each."""

    def write(self, entry: Entry, run: Run | None, starts: Run | None = None) -> WriteResult:
        """Write an entry and wait until it is stored. ``starts``: the run that it begins."""

    async def write_async(self, entry: Entry, run: Run | None, starts: Run | None = None) -> WriteResult:
        """``write`` for a coroutine."""

    def close(self) -> None:
        """Give back what writing needs."""


class Committer:
    """Writes entries in batches."""

    def __init__(self, gateway: Gateway, config: Config, drop: Callable[[Run], None]) -> None:
        self._gateway = gateway
        self._drop = drop
        self._dialect = gateway.dialect
        self._batch_size: Final = config.batch_size
        self._lock = threading.Lock()
        self._pending: deque[Ticket] = deque()
        self._lanes = [Lane() for _ in range(1 if self._dialect.single_writer else _LANES)]
        self._free = list(self._lanes)

    def write(self, entry: Entry, run: Run | None, starts: Run | None = None) -> WriteResult:
        """Write an entry together with whatever others write now, and wait for the commit.

        ``starts`` is the run that the entry begins: if its caller is interrupted meanwhile, ``drop`` gets it once the
        write is through, because nobody else knows of it.
        """
        ticket = Ticket(entry, run, starts)
        lane = self._line_up(ticket)
        if lane is not None and not self._gateway.has_service_loop:
            self._lead(lane, [ticket], ticket)
            return ticket.outcome()
        assert ticket.wake is not None
        if lane is not None:
            self._gateway.start(lambda: self._lead_while_pending(lane, [ticket]))
        try:
            ticket.wake.acquire()
        except BaseException:
            self._withdraw(ticket)
            raise
        finally:
            _wake_following(ticket)
        if ticket.task is not None:
            self._lead(*ticket.task, ticket)
        return ticket.outcome()

    def write_later(self, entry: Entry, run: Run | None, then: Callable[[Ticket], None]) -> None:
        """``write`` without waiting, unless nobody else is writing; ``then`` must not block whoever calls it."""
        ticket = Ticket(entry, run, None)
        ticket.then = then
        lane = self._line_up(ticket)
        if lane is None:
            return
        if self._gateway.has_service_loop:
            self._gateway.start(lambda: self._lead_while_pending(lane, [ticket]))
        else:
            self._lead(lane, [ticket], ticket)

    async def write_async(self, entry: Entry, run: Run | None, starts: Run | None = None) -> WriteResult:
        """``write`` for a coroutine: the flush happens on the service loop."""
        ticket = Ticket(entry, run, starts)
        ticket.future = asyncio.get_running_loop().create_future()
        lane = self._line_up(ticket)
        if lane is not None:
            self._gateway.start(lambda: self._lead_while_pending(lane, [ticket]))
        try:
            await ticket.future
        except BaseException:
            # Nobody can cancel what happens on the service loop: the ticket just has no reader any more.
            self._withdraw(ticket)
            raise
        return ticket.outcome()

    def close(self) -> None:
        """Give the connections back; from within ``blocking``, when nobody writes any more."""
        for lane in self._lanes:
            connection, lane.connection = lane.connection, None
            if connection is not None:
                connection.close()

    def _line_up(self, ticket: Ticket) -> Lane | None:
        """Give the ticket a lane of its own if one is free; else it joins those that wait."""
        with self._lock:
            if self._free:
                lane = self._free.pop()
                if ticket.is_awaited_by_thread and self._gateway.has_service_loop:
                    ticket.wake = _taken_lock()
                return lane
            if ticket.is_awaited_by_thread:
                ticket.wake = _taken_lock()
            self._pending.append(ticket)
            return None

    def _withdraw(self, ticket: Ticket) -> None:
        """Note that the ticket's thread no longer waits; if it was to lead, somebody else must."""
        with self._lock:
            ticket.is_gone = True
            is_done, task, ticket.task = ticket.is_done, ticket.task, None
        if is_done and ticket.starts is not None:
            self._drop(ticket.starts)
        if task is not None:
            lane, batch = task
            with self._lock:
                self._pending.extendleft(reversed(batch))
            self._lead_leaderless(lane, self._pass_on(lane))

    def _lead_while_pending(self, lane: Lane, batch: list[Ticket]) -> None:
        while batch:
            try:
                self._flush(lane, batch)
            except BaseException as error:
                lane.drop()
                self._give_up(lane, batch, error)
                raise
            with self._lock:
                following = self._next_batch()
                if not following:
                    self._free.append(lane)
            self._wake(batch)
            batch = following

    def _give_up(self, lane: Lane, batch: list[Ticket], error: BaseException) -> None:
        """The service loop ends: nobody will write what is pending, and whoever waits for it must hear that."""
        with self._lock:
            batch += self._pending
            self._pending.clear()
            self._free.append(lane)
        for ticket in batch:
            ticket.error = ticket.error or error
        self._wake(batch)

    def _lead(self, lane: Lane, batch: list[Ticket], own: Ticket) -> None:
        """Flush a batch in which the caller's ``own`` ticket is, pass the lane on, and wake those who waited."""
        own.wake = None
        try:
            self._flush(lane, batch)
        except BaseException:
            # Only this thread was interrupted: the others' entries count as stalled, and are written alone.
            lane.drop()
            own.is_gone = True
            raise
        finally:
            # The next leader first: its flush waits for the disk while the others go on in Python.
            left = self._pass_on(lane)
            self._wake(batch)
            self._lead_leaderless(lane, left)

    def _wake(self, batch: Sequence[Ticket]) -> None:
        """Tell those who wait that their tickets are done, and see to the runs of those who do not any more."""
        with self._lock:
            for ticket in batch:
                ticket.is_done = True
            threads = _chained([ticket for ticket in batch if ticket.wake is not None and not ticket.is_gone])
            orphans = [ticket.starts for ticket in batch if ticket.is_gone and ticket.starts is not None]
        for run in orphans:
            self._drop(run)
        _wake_coroutines(batch)
        _wake_thread(threads)
        for ticket in batch:
            if ticket.then is not None:
                ticket.then(ticket)

    def _lead_leaderless(self, lane: Lane, batch: list[Ticket]) -> None:
        """Flush batches for whose tickets no thread waits, until one has a leader or nothing is left."""
        while batch:
            try:
                self._flush(lane, batch)
            except BaseException:
                lane.drop()
                raise
            finally:
                left = self._pass_on(lane)
                self._wake(batch)
            batch = left

    def _pass_on(self, lane: Lane) -> list[Ticket]:
        """Have a thread that waits lead the next batch; gives the batch if nobody waits for it."""
        with self._lock:
            batch = self._next_batch()
            leader = next((ticket for ticket in batch if ticket.is_awaited_by_thread and not ticket.is_gone), None)
            if leader is None and any(ticket.then is not None for ticket in batch):
                return batch
            if leader is None:
                # Those that are gone are written with the next batch.
                self._pending.extendleft(reversed(batch))
                self._free.append(lane)
                return []
            leader.task = (lane, batch)
        _wake_thread(leader)
        return []

    def _next_batch(self) -> list[Ticket]:
        return [self._pending.popleft() for _ in range(min(len(self._pending), self._batch_size))]

    def _flush(self, lane: Lane, batch: Sequence[Ticket]) -> None:
        """Write a batch, again and again while the database is away, and note what became of each entry."""
        patience: Patience | None = None
        remaining = list(batch)
        while remaining:
            try:
                written = self._write(lane, [ticket.entry for ticket in remaining])
            except Exception as error:
                lane.drop()
                fault = self._dialect.fault(error)
                if fault is Fault.REJECTED and len(remaining) > 1:
                    logger.warning("a batch of %d entries is written one by one: %s", len(remaining), error)
                if fault is not Fault.DISCONNECTED:
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

    def _write(self, lane: Lane, entries: Sequence[Entry]) -> set[int]:
        if lane.connection is None:
            lane.connection = self._dialect.direct_connection(self._gateway.engine)
        connection, dialect = lane.connection, self._dialect
        with self._gateway.writing():
            if dialect.begins_by_driver:
                with connection.transaction():
                    return checkpoints.write(connection, dialect, entries)
            if checkpoints.is_single_statement(dialect, entries):
                return checkpoints.write(connection, dialect, entries)
            # An error on the way, or an interruption, drops the lane's connection, and the transaction with it.
            connection.execute(dialect.begin)
            written = checkpoints.write(connection, dialect, entries)
            connection.execute("COMMIT")
            return written


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _chained(tickets: Sequence[Ticket]) -> Ticket | None:
    """Have each thread wake the next one, and give the first; called with the lock held.

    Threads that are all woken at once all ask for the interpreter lock, which one of them gets: two more
    switches of the operating system for each of the others.
    """
    for ticket, following in pairwise(tickets):
        ticket.following = following
    return tickets[0] if tickets else None


def _wake_thread(ticket: Ticket | None) -> None:
    if ticket is not None and ticket.wake is not None:
        ticket.wake.release()


def _wake_following(ticket: Ticket) -> None:
    """Pass a wake-up on: at once if the thread was interrupted, whether or not it had been woken."""
    following, ticket.following = ticket.following, None
    _wake_thread(following)


def _wake_coroutines(tickets: Sequence[Ticket]) -> None:
    """Wake the coroutines that wait; each event loop is interrupted once, however many of them are on it."""
    futures: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for ticket in tickets:
        if ticket.future is not None:
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
