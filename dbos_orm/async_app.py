"""``AsyncDBOS``: durable workflows for coroutines."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from datetime import datetime
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, overload

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.util import greenlet_spawn

from dbos_orm import _launching
from dbos_orm._application import AnyDBOS
from dbos_orm._binds import AsyncBind, ResolvedBind, resolve_async
from dbos_orm._callables import session_parameter
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows.effects import Flow, Outcome
from dbos_orm._outcomes import unwrap
from dbos_orm._retry import Retry
from dbos_orm._settings import step_settings
from dbos_orm._steps import AsyncStep
from dbos_orm._transactions import AsyncTransaction
from dbos_orm._workflows import AsyncWorkflow
from dbos_orm.config import Config, Duration
from dbos_orm.handles import AsyncWorkflowHandle, async_driver_of

__all__ = ["AsyncDBOS"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=AsyncSession)


class AsyncDBOS(AnyDBOS):
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
        config: Config | None = None,
    ) -> None:
        super().__init__(name=name, modules=modules, config=Config() if config is None else config)
        self._given = bind
        if bind is not None:
            self._runtime.bind_given = lambda: self.bind(bind)

    # -- life cycle ------------------------------------------------------------------------------

    def bind(self, bind: AsyncBind) -> Self:
        """Give the application its database: an AsyncEngine, an async_sessionmaker, an async_scoped_session or a URL.

        Raises:
            ConfigurationError: the bind cannot work, or the application is launched.
        """
        self._bind(resolve_async(bind))
        self._given = bind
        self._runtime.bind_given = lambda: self.bind(bind)
        return self

    def launch(self, bind: AsyncBind | None = None, *, migrate: bool | None = None) -> _Launching:
        """Execute workflows on the running event loop; ``await`` it, or enter it with ``async with``.

        Takes and raises what ``DBOS.launch`` does.
        """
        self._refuse_second_launch()
        return _Launching(self, bind, migrate)

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

    async def launch_here(self, bind: AsyncBind | None, migrate: bool | None) -> None:
        """What ``launch`` does when it is awaited."""
        loop = asyncio.get_running_loop()
        if bind is not None:
            self.bind(bind)
        elif self._runtime.binding is None:
            self._bind(resolve_async(self._given))
        binding = self._runtime.bound("launch()")
        async_driver_of(binding).loop = loop
        resolved = self._resolved
        try:
            await _in_own_thread(lambda: _launching.reach(binding))
            await greenlet_spawn(_launching.probe, binding)
            await _in_own_thread(lambda: self._launch(migrate=migrate))
        except BaseException:
            # Also where the launch went through after its caller had been cancelled.
            await _in_own_thread(lambda: self.shut_down(0))
            await _close_ours(resolved)
            raise

    def _dispose(self, resolved: ResolvedBind) -> None:
        # Its connections belong to the user's loop, and can be closed only there: by ``shutdown``.
        pass

    # -- decorators ------------------------------------------------------------------------------

    @overload
    def workflow(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...
    @overload
    def workflow(
        self,
        *,
        name: str | None = None,
        version: str | None = None,
        timeout: Duration | None = None,
        max_recovery_attempts: int | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], AsyncWorkflow[P, R]]: ...
    def workflow(self, fn: Any = None, **options: Any) -> Any:
        """Make an ``async def`` durable; takes and raises what ``DBOS.workflow`` does."""

        def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> AsyncWorkflow[P, R]:
            wanted = {
                "name": None,
                "version": None,
                "timeout": None,
                "max_recovery_attempts": None,
                **options,
            }
            return AsyncWorkflow(self._runtime, self._register_workflow(function, is_async=True, **wanted), {})

        return decorate if fn is None else decorate(fn)

    @overload
    def step(
        self,
        fn: Callable[P, Coroutine[Any, Any, R]],
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
    ) -> AsyncStep[P, R]: ...
    @overload
    def step(
        self,
        fn: Callable[P, R],
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
    ) -> AsyncStep[P, R]: ...
    @overload
    def step(
        self, *, name: str | None = None, retry: Retry | None = None, timeout: Duration | None = None
    ) -> _StepDecorator: ...
    def step(
        self,
        fn: Any = None,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
    ) -> Any:
        """Record what a function returns or raises; a plain ``def`` runs in a thread. Else as ``DBOS.step``."""
        settings = step_settings(retry, timeout)

        def decorate(function: Any) -> Any:
            found = self._register_step(function, "step", is_async=None, name=name)
            is_sync = not inspect.iscoroutinefunction(function)
            return AsyncStep(self._runtime, found, function, settings, is_sync=is_sync)

        return decorate if fn is None else decorate(fn)

    @overload
    def transaction(self, fn: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /) -> AsyncTransaction[S, P, R]: ...
    @overload
    def transaction(
        self,
        *,
        name: str | None = None,
        isolation_level: str | None = None,
        max_attempts: int | None = None,
        statement_timeout: Duration | None = None,
    ) -> Callable[[Callable[Concatenate[S, P], Coroutine[Any, Any, R]]], AsyncTransaction[S, P, R]]: ...
    @overload
    def transaction(
        self,
        *,
        sessionmaker: async_sessionmaker[S],
        name: str | None = None,
        isolation_level: str | None = None,
        max_attempts: int | None = None,
        statement_timeout: Duration | None = None,
    ) -> Callable[[Callable[Concatenate[S, P], Coroutine[Any, Any, R]]], AsyncTransaction[S, P, R]]: ...
    def transaction(self, fn: Any = None, *, name: str | None = None, **options: Any) -> Any:
        """Make an ``async def`` with an ``AsyncSession`` one transaction. Else as ``DBOS.transaction``."""
        settings = self._transaction_settings(options, is_async=True)

        def decorate(function: Callable[..., Any]) -> AsyncTransaction[Any, Any, Any]:
            found = self._register_step(function, "transaction", is_async=True, name=name)
            session = session_parameter(function, is_async=True)
            return AsyncTransaction(self._runtime, found, function, session=session, settings=settings)

        return decorate if fn is None else decorate(fn)

    # -- from outside ----------------------------------------------------------------------------

    def handle(self, workflow_id: str, /) -> AsyncWorkflowHandle[Any]:
        """A handle of any workflow, by its ID; nothing is looked up."""
        return AsyncWorkflowHandle(self._runtime, workflow_id)

    # -- inside a run ----------------------------------------------------------------------------

    @property
    def session(self) -> AsyncSession:
        """The session of the transaction that is running here.

        Raises:
            NotInWorkflowError: none is.
        """
        return cast("AsyncSession", self._session())

    def now(self) -> Coroutine[None, None, datetime]:
        """The present instant, aware and in UTC; a replay gets the recorded one."""
        return _now(*self._present())

    def sleep(self, duration: Duration, /) -> Coroutine[None, None, None]:
        """Wait, durably; raises as ``DBOS.sleep``."""
        return _sleep(*self._sleeping(duration))


# Their numbers were drawn when they were called; what is awaited is the rest.


async def _now(binding: Binding, flow: Flow[Outcome]) -> datetime:
    return cast("datetime", unwrap(await async_driver_of(binding).run(flow)))


async def _sleep(binding: Binding, flow: Flow[None]) -> None:
    await async_driver_of(binding).run(flow)


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

    def __init__(self, application: AsyncDBOS, bind: AsyncBind | None, migrate: bool | None) -> None:
        self._application = application
        self._bind = bind
        self._migrate = migrate

    def __await__(self) -> Generator[Any, None, AsyncDBOS]:
        return self._start().__await__()

    async def __aenter__(self) -> AsyncDBOS:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._application.__aexit__(kind, error, trace)

    async def _start(self) -> AsyncDBOS:
        await self._application.launch_here(self._bind, self._migrate)
        return self._application


class _StepDecorator(Protocol):
    """The type of ``adbos.step(...)``: a Protocol, because the decorator that it returns is itself overloaded."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> AsyncStep[P, R]: ...
