"""Processes that die between two effects of a workflow, without a process.

A flow does nothing but yield effects, so a run that is dropped before or after each of them has died at
every point at which its process can die, as the database sees it: what was committed is there, and
nothing more comes. Hundreds of runs may be dropped in one launch, each with a ``Fate`` of its own.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from types import CodeType
from typing import Any, NoReturn, TypeVar

from sqlalchemy import Engine, select
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from dbos_orm import DBOS, AsyncDBOS
from dbos_orm._application import AnyDBOS
from dbos_orm._context import OpenTransaction, Run
from dbos_orm._dialects import Dialect, Fault
from dbos_orm._drivers.async_driver import AsyncDriver
from dbos_orm._drivers.binding import Binding
from dbos_orm._drivers.sync_driver import SyncDriver
from dbos_orm._flows import effects
from dbos_orm._flows.effects import Effect, Flow, Unreachable, WriteResult
from dbos_orm._outcomes import Raised, Returned
from dbos_orm._services.service import Service
from dbos_orm._services.tick import TickService
from dbos_orm._store import executors
from dbos_orm.errors import DatabaseUnavailableError
from dbos_orm.models import Executor
from tests.processes import PATIENCE

T = TypeVar("T")

_CLOSING = (effects.Commit, effects.Rollback)
_TROUBLED = (
    effects.Write,
    effects.WriteAlone,
    effects.Probe,
    effects.RecordIn,
    effects.Commit,
    effects.Reach,
    effects.Ask,
)
_SHORT_SECONDS = 0.001
_AWAY = Unreachable(DatabaseUnavailableError("simulated", 0, None), Fault.DISCONNECTED)
_NOTHING = object()


class Dropped(BaseException):
    """Unwinds what is left of a run whose process is gone."""


class When(enum.StrEnum):
    """On which side of an effect the process dies."""

    BEFORE = "before"
    AFTER = "after"


class Trouble(enum.Enum):
    """What goes wrong with the database, so that flows take the ways which they take only then."""

    STALLED = "stalled"
    """No batch can be written, every other lone write meets a lock, and the answer to the first commit is lost."""
    REPEATED = "repeated"
    """Every batch is written twice, the first fence of a transaction refuses, and its first commit is lost."""


@dataclass(eq=False)
class Fate:
    """What becomes of one tree of workflows: it dies at its effect number ``at`` (0: it does not)."""

    at: int = 0
    when: When = When.BEFORE
    trouble: Trouble | None = None
    count: int = 0
    is_over: bool = False
    under_way: int = 0
    runs: set[Run] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tried: Counter[type[Effect[Any]]] = field(default_factory=Counter)

    @contextmanager
    def performing(self) -> Iterator[None]:
        """Around one effect: count it, and die if it is the one; nothing is performed by the dead."""
        if self.is_over:
            self.die()
        with self._lock:
            self.count += 1
            number = self.count
            self.under_way += 1
        try:
            if number == self.at and self.when is When.BEFORE:
                self.die()
            yield
            if number == self.at or self.is_over:
                self.die()
        finally:
            with self._lock:
                self.under_way -= 1

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of this tree is being done."""
        return not self.under_way and not self.runs

    def wait_until_quiet(self) -> None:
        """Wait until nothing of this tree is being done any more."""
        deadline = time.monotonic() + PATIENCE
        while not self.is_quiet:
            assert time.monotonic() < deadline, f"{self} goes on"
            time.sleep(_SHORT_SECONDS)

    def tried(self, effect: Effect[Any]) -> int:
        """How often an effect of this kind was tried before; this is one more."""
        self._tried[type(effect)] += 1
        return self._tried[type(effect)] - 1

    def die(self) -> NoReturn:
        """End the process of this tree here and now; also for the code of a step."""
        self.is_over = True
        # Also those that began since: a run that ends in another way is handed over, which the dead do not do.
        for run in tuple(self.runs):
            run.end_with(Dropped())
        raise Dropped


current_fate: ContextVar[Fate | None] = ContextVar("current_fate", default=None)


class Fates:
    """The fates of one launch by the ID of the root, and from where in the flows its effects came.

    IDs of children begin with their root's and a hyphen, so that a run has one fate in all threads and tasks.
    """

    def __init__(self) -> None:
        self.sites: set[tuple[CodeType, int, type[Effect[Any]]]] = set()
        self._fates: dict[str, Fate] = {}

    def add(self, root: str, fate: Fate) -> Fate:
        self._fates[root] = fate
        return fate

    def of(self, workflow_id: str) -> Fate | None:
        return self._fates.get(workflow_id.partition("-")[0])

    def fulfilled(self) -> set[str]:
        """The roots whose trees were dropped."""
        return {root for root, fate in self._fates.items() if fate.is_over}

    def wait_until_quiet(self) -> None:
        """Wait until nothing of any tree is being done any more."""
        for fate in self._fates.values():
            fate.wait_until_quiet()

    async def wait_until_quiet_async(self, root: str | None = None) -> None:
        """``wait_until_quiet`` without blocking the loop; of one tree, if it is named."""
        deadline = time.monotonic() + PATIENCE
        fates = list(self._fates.values()) if root is None else [self._fates[root]]
        while not all(fate.is_quiet for fate in fates):
            assert time.monotonic() < deadline, "a tree goes on"
            await asyncio.sleep(_SHORT_SECONDS)

    @contextmanager
    def of_run(self, run: Run) -> Iterator[None]:
        """Around the execution of a run, here or in the background."""
        fate = self.of(run.workflow_id)
        token = current_fate.set(fate)
        if fate is not None:
            fate.runs.add(run)
        try:
            yield
        finally:
            if fate is not None:
                fate.runs.discard(run)
            current_fate.reset(token)

    def observed(self, flow: Flow[T]) -> Flow[T]:
        """The same flow; where its effects come from is noted."""
        try:
            effect = next(flow)
            while True:
                self.sites.add((*_site_of(flow), type(effect)))
                result = yield effect
                effect = flow.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            flow.close()


class DroppingDriver(SyncDriver):
    """Performs effects until the fate of their run is fulfilled, and nothing after that."""

    finishes_later = False

    def __init__(self, driver: SyncDriver, fates: Fates) -> None:
        super().__init__(
            driver._environment,
            driver._gateway,
            driver._committer,
            driver._runs,
            driver._threads,
            driver.sessions._databases,
            driver._hints,
        )
        self._fates = fates

    def run(self, flow: Flow[T]) -> T:
        return super().run(self._fates.observed(flow))

    def perform(self, effect: Effect[T]) -> T:
        fate = current_fate.get()
        if fate is None:
            return super().perform(effect)
        result: Any = _NOTHING
        try:
            with fate.performing():
                performed, answer = _disturbed(effect, fate)
                result = answer if performed is None else super().perform(performed)
            given: T = result if answer is None else answer
            return given
        except Dropped:
            # A connection dies with its process.
            transaction = _left_open(effect, result)
            if transaction is not None:
                self.sessions.close(transaction)
            raise

    def _execute(self, effect: effects.Execute) -> effects.Outcome:
        with self._fates.of_run(effect.run):
            return super()._execute(effect)


class AsyncDroppingDriver(AsyncDriver):
    """``DroppingDriver`` for coroutines."""

    def __init__(self, driver: AsyncDriver, fates: Fates) -> None:
        super().__init__(
            driver._environment,
            driver._gateway,
            driver._committer,
            driver._runs,
            driver.sessions._databases,
            driver._hints,
        )
        self._fates = fates

    async def run(self, flow: Flow[T]) -> T:
        return await super().run(self._fates.observed(flow))

    async def perform(self, effect: Effect[T]) -> T:
        fate = current_fate.get()
        if fate is None:
            return await super().perform(effect)
        result: Any = _NOTHING
        try:
            with fate.performing():
                performed, answer = _disturbed(effect, fate)
                result = answer if performed is None else await super().perform(performed)
            given: T = result if answer is None else answer
            return given
        except Dropped:
            transaction = _left_open(effect, result)
            if transaction is not None:
                await self.sessions.close(transaction)
            raise

    async def _execute(self, effect: effects.Execute) -> effects.Outcome:
        with self._fates.of_run(effect.run):
            return await super()._execute(effect)


def _disturbed(effect: Any, fate: Fate) -> tuple[Any, Any]:
    """What is performed instead of an effect (None: nothing), and what is answered (None: its result)."""
    if isinstance(effect, effects.Pause) and 0.005 < effect.seconds <= 1:
        # The library's own pauses give others time, whom there are not here.
        return replace(effect, seconds=_SHORT_SECONDS), None
    if fate.trouble is None or not isinstance(effect, _TROUBLED):
        return effect, None
    tried, is_stalled = fate.tried(effect), fate.trouble is Trouble.STALLED
    if isinstance(effect, effects.Write):
        return (None, WriteResult.STALLED) if is_stalled else (effect, WriteResult.REFUSED)
    if isinstance(effect, effects.Commit):
        lost = None if tried else Raised(ConnectionResetError("simulated"))
        return (effect if is_stalled or tried else effects.Rollback(effect.transaction), lost)
    if isinstance(effect, effects.Reach):
        return effect, None if tried else _AWAY
    if isinstance(effect, effects.Ask):
        return (effect if tried or not is_stalled else None), None if tried else Raised(
            ConnectionResetError("simulated")
        )
    if isinstance(effect, effects.RecordIn):
        return (effect, None) if is_stalled or tried else (None, Returned(WriteResult.REFUSED))
    return (None, WriteResult.STALLED) if is_stalled and tried % 2 == 0 else (effect, None)


def _left_open(effect: Any, result: Any) -> OpenTransaction | None:
    """The transaction that nobody is going to close when the effect was dropped on either side."""
    if isinstance(effect, _CLOSING) and result is _NOTHING:
        return effect.transaction
    return result.value if isinstance(effect, effects.OpenSession) and isinstance(result, Returned) else None


def _site_of(flow: Any) -> tuple[CodeType, int]:
    """The innermost flow that waits, and the line where it does."""
    inner = flow
    # The last one is not a flow, but the effect's own iteration.
    while inspect.isgenerator(inner.gi_yieldfrom) and inner.gi_yieldfrom.gi_code is not _ITERATION:
        inner = inner.gi_yieldfrom
    return inner.gi_code, inner.gi_frame.f_lineno


_ITERATION = Effect.__iter__.__code__


class _HandedOver(deque[Run]):
    """What a process is going to hand over: nothing of the dead."""

    def __init__(self, fates: Fates) -> None:
        super().__init__()
        self._fates = fates

    def append(self, run: Run, /) -> None:
        fate = self._fates.of(run.workflow_id)
        if fate is None or not fate.is_over:
            super().append(run)


# -- lives of a process --------------------------------------------------------------------------


@contextmanager
def process(dbos: DBOS, engine: Engine, fates: Fates) -> Iterator[Service]:
    """A launch that ends as if its process was killed: whoever comes next finds its executor dead. Gives its tick."""
    dbos.bind(engine)
    binding = dbos._runtime.bound("a test")
    binding.driver = DroppingDriver(binding.driver, fates)
    binding.runs.dropped = _HandedOver(fates)
    dbos.launch()
    try:
        yield _tick_of(dbos)
    finally:
        _vanish(dbos, binding)


@asynccontextmanager
async def async_process(dbos: AsyncDBOS, engine: AsyncEngine, fates: Fates) -> AsyncIterator[Service]:
    """``process`` for coroutines."""
    dbos.bind(engine)
    binding = dbos._runtime.bound("a test")
    assert binding.async_driver is not None
    binding.async_driver = AsyncDroppingDriver(binding.async_driver, fates)
    binding.runs.dropped = _HandedOver(fates)
    await dbos.launch()
    try:
        yield _tick_of(dbos)
    finally:
        await asyncio.to_thread(_vanish, dbos, binding)


def _tick_of(dbos: AnyDBOS) -> Service:
    assert dbos._launched is not None
    return next(service for service in dbos._launched.services if isinstance(service, TickService))


def _vanish(dbos: AnyDBOS, binding: Binding) -> None:
    launched = dbos._launched
    assert launched is not None
    assert launched.leases is not None
    launch = launched.launch
    binding.hints.dispatcher = binding.hints.look_everywhere = None
    for service in (*launched.hints, *launched.services, launched.leases):
        service.stop()
    launch.is_over = True
    binding.gateway.change(partial(declare_dead, dialect=binding.dialect, executor_id=launch.executor_id))
    dbos._launched = dbos._runtime.launch = None
    dbos._unbind()


def declare_dead(connection: Connection, dialect: Dialect, executor_id: str) -> None:
    """Do at once what an observer does after a lease of silence."""
    heartbeat = connection.scalars(select(Executor.heartbeat).where(Executor.executor_id == executor_id)).one()
    assert executors.expire(connection, dialect, executor_id, heartbeat=heartbeat)
