"""The gateway of an asynchronous application: an event loop in a thread of its own, with its own pool."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.util import await_only, greenlet_spawn

from dbos_orm._context import Run
from dbos_orm._dialects import Dialect
from dbos_orm._drivers.gateway import Gateway
from dbos_orm.config import Config

T = TypeVar("T")

_DRAIN_SECONDS: Final = 5.0


class ServiceLoop:
    """An event loop in a daemon thread. Nothing of the user's runs on it, so nothing of the user's can block it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run synchronous code in a greenlet of the loop, where asynchronous drivers can be used."""
        return asyncio.run_coroutine_threadsafe(self._tracked(call), self._running())

    def start(self, call: Callable[[], object]) -> None:
        """``submit`` without an answer."""
        self._running().call_soon_threadsafe(self._start, call)

    def is_here(self) -> bool:
        """Whether the caller is on the loop's thread."""
        return threading.current_thread() is self._thread

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop; its thread begins with the first use, so that what is only bound may fork."""
        if self._loop is None:
            with self._lock:
                if self._loop is None:
                    loop = asyncio.new_event_loop()
                    self._thread = threading.Thread(target=loop.run_forever, name=self._name, daemon=True)
                    self._thread.start()
                    self._loop = loop
        return self._loop

    def drain(self) -> None:
        """Let what runs finish, for a while: somebody may be waiting for its answer."""
        if self._loop is not None:
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self._drained(), self._loop).result(_DRAIN_SECONDS)

    def stop(self) -> None:
        """``drain``, and end the thread."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self.drain()
        # What a database that is away still keeps waiting would keep its callers waiting for ever.
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._cancelled(), loop).result(_DRAIN_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)
        if not loop.is_running():
            loop.close()

    async def _drained(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _cancelled(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _tracked(self, call: Callable[[], T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await _spawned(call)

    def _start(self, call: Callable[[], object]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(_spawned(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _spawned(call: Callable[[], T]) -> T:
    result: T = await greenlet_spawn(call)
    return result


class CoroutineGateway(Gateway):
    """A gateway that coroutines may use, too."""

    @abc.abstractmethod
    async def read_async(self, verb: Callable[[Connection], T], run: Run | None = None) -> T:
        """``read`` for a coroutine of another loop."""

    @abc.abstractmethod
    async def change_async(self, verb: Callable[[Connection], T], run: Run | None = None) -> T:
        """``change`` for a coroutine of another loop; it goes on if its caller is cancelled meanwhile."""

    @abc.abstractmethod
    async def attempt_async(self, call: Callable[[], T], run: Run | None) -> T:
        """``attempt`` for a coroutine of another loop."""


class AsyncGateway(CoroutineGateway):
    """A gateway whose connections belong to a service loop; threads and coroutines of any other loop may use it."""

    has_service_loop = True

    def __init__(self, engine: Engine, dialect: Dialect, config: Config, loop: ServiceLoop) -> None:
        super().__init__(engine, dialect, config)
        self._loop = loop

    def blocking(self, call: Callable[[], T]) -> T:
        if self._loop.is_here():
            return call()
        return self._loop.submit(call).result()

    def start(self, call: Callable[[], object]) -> None:
        self._loop.start(call)

    def pause(self, duration: float) -> None:
        await_only(asyncio.sleep(duration))

    def wait_for_turn(self, turn: Future[None]) -> None:
        if not turn.done():
            await_only(asyncio.wrap_future(turn))

    async def read_async(self, verb: Callable[[Connection], T], run: Run | None = None) -> T:
        return await asyncio.wrap_future(self._loop.submit(lambda: self.read(verb, run)))

    async def change_async(self, verb: Callable[[Connection], T], run: Run | None = None) -> T:
        return await asyncio.shield(asyncio.wrap_future(self._loop.submit(lambda: self.change(verb, run))))

    async def attempt_async(self, call: Callable[[], T], run: Run | None) -> T:
        return await asyncio.wrap_future(self._loop.submit(lambda: self.attempt(call, run)))
