"""Everything on one connection of the caller's: no thread, no pool, no commit of ours.

For tests that roll back. What would be a transaction is a savepoint, what would be committed becomes visible on
that connection, and workflows run when somebody waits for them, on the waiter's stack.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker
from sqlalchemy.orm import sessionmaker
from sqlalchemy.util import greenlet_spawn

from dbos_orm._context import Run, current_transaction
from dbos_orm._dialects import Dialect, dialect_of
from dbos_orm._drivers.active_runs import ActiveRuns
from dbos_orm._drivers.async_driver import AsyncDriver
from dbos_orm._drivers.binding import Application, Binding, environment_of
from dbos_orm._drivers.databases import Databases
from dbos_orm._drivers.gateway import Gateway
from dbos_orm._drivers.hints import Hints
from dbos_orm._drivers.service_loop import CoroutineGateway
from dbos_orm._drivers.sessions import Database, SessionSource
from dbos_orm._drivers.sync_driver import SyncDriver
from dbos_orm._drivers.worker_threads import WorkerThreads
from dbos_orm._flows import effects
from dbos_orm._flows.effects import RunBody, WriteResult
from dbos_orm._store import checkpoints
from dbos_orm._store.entries import Entry, RunFinish
from dbos_orm._store.history import find_run
from dbos_orm.config import Config

T = TypeVar("T")


class InlineGateway(Gateway):
    """Calls store verbs on the caller's connection. What that has lost is the caller's to know: nothing is repeated."""

    def __init__(self, connection: Connection, dialect: Dialect, config: Config) -> None:
        super().__init__(connection.engine, dialect, config)
        self.connection = connection

    def transaction(self, verb: Callable[[Connection], T]) -> T:
        with self.connection.begin_nested():
            return verb(self.connection)

    def close(self) -> None:
        return None

    def forget(self) -> None:
        return None

    def _reading(self, verb: Callable[[Connection], T]) -> T:
        return verb(self.connection)

    def _patiently(self, call: Callable[[], T], run: Run | None) -> T:
        return call()


class AsyncInlineGateway(InlineGateway, CoroutineGateway):
    """``InlineGateway`` for coroutines, which take turns: a connection does one thing at a time."""

    async def read_async(self, verb: Callable[[Connection], T], run: Run | None = None) -> T:
        return await self._alone(lambda: self.read(verb, run))

    async def change_async(self, verb: Callable[[Connection], T], run: Run | None = None) -> T:
        return await self._alone(lambda: self.change(verb, run))

    async def attempt_async(self, call: Callable[[], T], run: Run | None) -> T:
        return await self._alone(call)

    async def _alone(self, call: Callable[[], T]) -> T:
        # Shielded: a statement that is cancelled half-way would leave the connection in the middle of it.
        return await asyncio.shield(asyncio.ensure_future(self._in_turn(call)))

    async def _in_turn(self, call: Callable[[], T]) -> T:
        if current_transaction.get() is not None:
            # The turn is that transaction's, whose code is waiting here.
            return await _spawned(call)
        await asyncio.wrap_future(self.writer.request())
        try:
            return await _spawned(call)
        finally:
            self.writer.release()


class InlineCommitter:
    """Writes entries one by one, as they come."""

    def __init__(self, gateway: InlineGateway) -> None:
        self._gateway = gateway

    def write(self, entry: Entry, run: Run | None, starts: Run | None = None) -> WriteResult:
        """Write an entry in a savepoint."""
        dialect = self._gateway.dialect

        def verb(connection: Connection) -> WriteResult:
            written = checkpoints.write(connection, dialect, [entry], skip_locked=False)
            return WriteResult.WRITTEN if written else WriteResult.REFUSED

        return self._gateway.transaction(verb)

    async def write_async(self, entry: Entry, run: Run | None, starts: Run | None = None) -> WriteResult:
        """``write`` for a coroutine."""
        assert isinstance(self._gateway, AsyncInlineGateway)
        return await self._gateway.attempt_async(lambda: self.write(entry, run, starts), run)

    def close(self) -> None:
        """Nothing is open."""


class InlineThreads(WorkerThreads):
    """Runs every job at once, where it is submitted."""

    def submit(self, job: Callable[[], None], *, is_part: bool = False) -> None:
        job()


class InlineSyncDriver(SyncDriver):
    """Runs what is ready where a thread would wait for it."""

    work: Callable[[], int] | None = None

    def _await_completion(self, effect: effects.AwaitCompletion) -> RunFinish | None:
        if effect.remote_seconds <= 0:
            return None
        if self.work is None or current_transaction.get() is not None or not self.work():
            raise _nothing_ready(effect.workflow_id)
        return None


class InlineAsyncDriver(AsyncDriver):
    """``InlineSyncDriver`` for coroutines, which may also wait for one another."""

    work: Callable[[], Awaitable[int]] | None = None

    async def _await_completion(self, effect: effects.AwaitCompletion) -> RunFinish | None:
        if effect.remote_seconds <= 0 or self._is_running(effect.workflow_id):
            return await super()._await_completion(effect)
        if not await self._has_worked() and not await self._was_taken(effect.workflow_id):
            raise _nothing_ready(effect.workflow_id)
        return None

    async def _has_worked(self) -> bool:
        return self.work is not None and current_transaction.get() is None and await self.work() > 0

    def _is_running(self, workflow_id: str) -> bool:
        return self._runs.get(workflow_id) is not None

    async def _was_taken(self, workflow_id: str) -> bool:
        """Whether another coroutine runs it, or has run it since it was looked for."""
        if self._is_running(workflow_id):
            return True
        found = await self._gateway.read_async(partial(find_run, workflow_id=workflow_id))
        return (found is not None and found.is_terminal) or self._is_running(workflow_id)


@dataclass(slots=True)
class InlineBinding(Binding):
    """A binding to one connection. Claimed runs are ``ready`` until somebody performs them."""

    gateway: InlineGateway

    ready: deque[tuple[Run, RunBody]] = field(default_factory=deque)

    @property
    def free(self) -> int:
        """One at a time, so that they run in the order of the queue."""
        return 1

    def spawn(self, run: Run, body: RunBody) -> None:
        """Have it ready; nothing runs in the background."""
        self.ready.append((run, body))

    def close(self) -> None:
        """The connection is the caller's."""


def bind_inline(application: Application, connection: Connection | AsyncConnection) -> InlineBinding:
    """Bind an application to one connection of the caller's, whose transaction stays the caller's."""
    is_async = isinstance(connection, AsyncConnection)
    inner = connection.sync_connection if isinstance(connection, AsyncConnection) else connection
    assert inner is not None
    config, engine = application.config, inner.engine
    dialect = dialect_of(engine, application.clock, config)
    dialect.is_guest = True
    kind = AsyncInlineGateway if is_async else InlineGateway
    gateway = kind(inner, dialect, config)
    committer, runs = InlineCommitter(gateway), ActiveRuns()
    threads, hints = InlineThreads(1, "inline"), Hints()
    maker = (
        async_sessionmaker(connection, join_transaction_mode="create_savepoint")
        if isinstance(connection, AsyncConnection)
        else sessionmaker(connection, join_transaction_mode="create_savepoint")
    )
    environment = environment_of(application, dialect, runs)
    own = Database(is_own=True, writer=gateway.writer if is_async else None)
    source = SessionSource(maker, engine, dialect, own)
    # Of other makers, too, the caller's connection is what reaches this database.
    databases = Databases(gateway, config, source, {"bind": connection, "join_transaction_mode": "create_savepoint"})
    binding = InlineBinding(
        application=application,
        environment=environment,
        engine=engine,
        gateway=gateway,
        heartbeat_gateway=gateway,
        committer=committer,
        runs=runs,
        threads=threads,
        databases=databases,
        hints=hints,
        driver=InlineSyncDriver(environment, gateway, committer, runs, threads, databases, hints),
    )
    if isinstance(gateway, AsyncInlineGateway):
        binding.async_driver = InlineAsyncDriver(environment, gateway, committer, runs, databases, hints)
    return binding


async def _spawned(call: Callable[[], T]) -> T:
    result: T = await greenlet_spawn(call)
    return result


def _nothing_ready(workflow_id: str) -> TimeoutError:
    return TimeoutError(
        f"workflow {workflow_id!r} cannot end: nothing is ready that this inline launch could run; "
        "it may wait for itself, for code that is not registered, or for the end of a transaction"
    )
