"""``AsyncDBOS``: durable workflows for coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Self

from sqlalchemy.util import greenlet_spawn

from dbos_orm import _launching
from dbos_orm._application import AnyDBOS
from dbos_orm._async_operations import AsyncOperations
from dbos_orm._binds import AsyncBind, ResolvedBind, resolve_async
from dbos_orm._queue_settings import NamedQueue, queue_names
from dbos_orm._scopes import typed_as
from dbos_orm._sync_view import SyncView
from dbos_orm.config import Config, Duration, seconds
from dbos_orm.handles import async_driver_of

__all__ = ["AsyncDBOS"]


class AsyncDBOS(AsyncOperations, AnyDBOS):
    """``DBOS`` for ``async def`` functions, on your own ``AsyncEngine``: the same names, to be awaited.

    Workflows run on the event loop that launches it; the library's own traffic runs on a loop and a pool of its
    own, so that neither can block the other. ``async with adbos.launch():``, or ``await adbos.launch()``.
    """

    def __init__(
        self,
        bind: AsyncBind | None = None,
        *,
        name: str,
        modules: Sequence[str] = (),
        run_context: Callable[[], AbstractContextManager[Any]] | None = None,
        config: Config | None = None,
    ) -> None:
        super().__init__(
            name=name, modules=modules, run_context=run_context, config=Config() if config is None else config
        )
        self.gather = typed_as(asyncio.gather, self._gathered)
        """``asyncio.gather`` for a workflow: coroutines are numbered in their order, so that steps can be called in
        them. It waits for all of them, and then raises the first error in their order."""
        self.sync = SyncView(name=name, config=self.config, types=self.types, runtime=self._runtime)
        """The decorators and operations for plain functions, which run on threads of this application."""
        self._given = bind
        if bind is not None:
            self._runtime.bind_given = lambda: self.bind(bind)

    def bind(self, bind: AsyncBind) -> Self:
        """Give the application its database: an AsyncEngine, an async_sessionmaker, an async_scoped_session or a URL.

        Raises:
            ConfigurationError: the bind cannot work, or the application is launched.
        """
        self._bind(resolve_async(bind, self._runtime.application.surroundings))
        self._given = bind
        self._runtime.bind_given = lambda: self.bind(bind)
        return self

    def launch(
        self,
        bind: AsyncBind | None = None,
        *,
        queues: Sequence[NamedQueue | str] | None = None,
        migrate: bool | None = None,
        inline: bool = False,
    ) -> _Launching:
        """Execute workflows on the running event loop; ``await`` it, or enter it with ``async with``.

        Takes and raises what ``DBOS.launch`` does.
        """
        self._refuse_second_launch()
        return _Launching(self, bind, queue_names(queues), migrate, inline)

    async def drain(self, timeout: Duration | None = None) -> int:
        """Of an inline launch: run here what is ready; takes and raises what ``DBOS.drain`` does."""
        return await self._inline_work().drain_async(inf if timeout is None else seconds(timeout, field="timeout"))

    async def shutdown(self, timeout: Duration = 30) -> None:
        """Stop: wait up to ``timeout`` for running workflows, then hand the rest to other processes."""
        resolved = self._resolved
        await _in_own_thread(lambda: self.shut_down(timeout))
        await _close_ours(resolved)

    async def __aenter__(self) -> Self:
        if not self.is_launched:
            await self.launch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Who is cancelled does not want to wait for workflows: others, or the next launch, continue them.
        await asyncio.shield(self.shutdown(0 if kind is not None and not issubclass(kind, Exception) else 30))

    async def launch_here(
        self, bind: AsyncBind | None, served: list[str] | None, migrate: bool | None, inline: bool
    ) -> None:
        """What ``launch`` does when it is awaited."""
        loop = asyncio.get_running_loop()
        if bind is not None:
            self.bind(bind)
        elif self._runtime.binding is None:
            self._bind(resolve_async(self._given, self._runtime.application.surroundings))
        binding = self._runtime.bound("launch()")
        async_driver_of(binding).loop = loop
        resolved = self._resolved
        try:
            self._require_inline(inline=inline)
            if inline:
                await greenlet_spawn(partial(self._launch_inline, migrate=migrate))
                return
            await _in_own_thread(lambda: _launching.reach(binding))
            await greenlet_spawn(_launching.probe, binding)
            await _in_own_thread(lambda: self._launch(migrate=migrate, served=served))
        except BaseException:
            # Also where the launch went through after its caller had been cancelled.
            await _in_own_thread(lambda: self.shut_down(0))
            await _close_ours(resolved)
            raise

    def _dispose(self, resolved: ResolvedBind) -> None:
        # Its connections belong to the user's loop, and can be closed only there: by ``shutdown``.
        pass


async def _in_own_thread(call: Callable[[], None]) -> None:
    """Run blocking code beside the loop, not behind the user's steps in its executor; to the end, even if cancelled."""
    done: Future[None] = Future()

    def work() -> None:
        try:
            call()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    thread = threading.Thread(target=work, name="dbos-life-cycle", daemon=True)
    thread.start()
    waiting = asyncio.wrap_future(done)
    try:
        await asyncio.shield(waiting)
    except asyncio.CancelledError:
        await asyncio.wait([waiting])
        raise
    finally:
        thread.join()


async def _close_ours(resolved: ResolvedBind | None) -> None:
    """Close the connections of an engine that was made from a URL; the running loop opened them."""
    if resolved is not None and resolved.is_ours:
        await greenlet_spawn(resolved.engine.dispose)


class _Launching:
    """A launch, to be awaited or entered."""

    def __init__(
        self,
        application: AsyncDBOS,
        bind: AsyncBind | None,
        served: list[str] | None,
        migrate: bool | None,
        inline: bool,
    ) -> None:
        self._application = application
        self._bind = bind
        self._served = served
        self._migrate = migrate
        self._inline = inline

    def __await__(self) -> Generator[Any, None, AsyncDBOS]:
        return self._start().__await__()

    async def __aenter__(self) -> AsyncDBOS:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._application.__aexit__(kind, error, trace)

    async def _start(self) -> AsyncDBOS:
        await self._application.launch_here(self._bind, self._served, self._migrate, self._inline)
        return self._application
