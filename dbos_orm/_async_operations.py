"""Decorators and operations for coroutines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dbos_orm._callables import session_parameter
from dbos_orm._calls import Call
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows.effects import Flow, Outcome
from dbos_orm._operations import AnyOperations
from dbos_orm._outbox import ASYNC_SCOPES, AsyncScope, Staging, SyncScope, on_async_scope, stage_many
from dbos_orm._outcomes import unwrap
from dbos_orm._queue_control import AsyncQueues
from dbos_orm._queues import Queue
from dbos_orm._retry import Retry
from dbos_orm._runtime import Runtime
from dbos_orm._schedule_settings import CatchUp
from dbos_orm._schedules import AsyncSchedules
from dbos_orm._scopes import gather, open_task
from dbos_orm._services.cron import Trigger
from dbos_orm._settings import step_settings
from dbos_orm._starting_many import once_each, to_stage_many, to_start_many
from dbos_orm._steps import AsyncStep
from dbos_orm._store.starting import Placed
from dbos_orm._transactions import AsyncTransaction
from dbos_orm._workflows import AsyncWorkflow
from dbos_orm.config import Duration
from dbos_orm.handles import AsyncStagedHandle, AsyncWorkflowHandle, async_driver_of

P = ParamSpec("P")
R = TypeVar("R")
Owner = TypeVar("Owner")
Scheduled = TypeVar("Scheduled", bound=AsyncWorkflow[[datetime, datetime], Any])
S = TypeVar("S", bound=AsyncSession)


class AsyncOperations(AnyOperations):
    """``SyncOperations`` for ``async def`` functions."""

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
        coerce: bool = False,
        queue: Queue | str | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], AsyncWorkflow[P, R]]: ...
    def workflow(self, fn: Any = None, **options: Any) -> Any:
        """Make an ``async def`` durable; takes and raises what ``DBOS.workflow`` does."""

        def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> AsyncWorkflow[P, R]:
            return AsyncWorkflow(self._runtime, self._register_workflow(function, is_async=True, **options), {})

        return decorate if fn is None else decorate(fn)

    def scheduled(
        self,
        schedule: str | Trigger,
        *,
        name: str | None = None,
        timezone: str | tzinfo | None = None,
        queue: Queue | str | None = None,
        catch_up: CatchUp = "last",
    ) -> Callable[[Scheduled], Scheduled]:
        """Start a workflow at the times of cron text or of a trigger; takes and raises what ``DBOS.scheduled`` does."""

        def declare(workflow: Scheduled) -> Scheduled:
            options: dict[str, Any] = {"name": name, "timezone": timezone, "queue": queue, "catch_up": catch_up}
            self._register_schedule(workflow, schedule, **options)
            return workflow

        return declare

    @property
    def schedules(self) -> AsyncSchedules:
        """The schedules in the database: to be listed, made, changed, paused and triggered."""
        return AsyncSchedules(self._runtime)

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
        self, fn: Callable[Concatenate[Owner, S, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTransaction[S, Concatenate[Owner, P], R]: ...
    @overload
    def transaction(
        self,
        *,
        name: str | None = None,
        isolation_level: str | None = None,
        max_attempts: int | None = None,
        statement_timeout: Duration | None = None,
    ) -> _TransactionDecorator: ...
    @overload
    def transaction(
        self,
        *,
        sessionmaker: async_sessionmaker[S],
        name: str | None = None,
        isolation_level: str | None = None,
        max_attempts: int | None = None,
        statement_timeout: Duration | None = None,
    ) -> _SessionTransactionDecorator[S]: ...
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

    def named(self, name: str, /) -> AsyncWorkflow[..., Any]:
        """The workflow of this name; else as ``DBOS.named``."""
        return AsyncWorkflow(self._runtime, self._runtime.application.registry.workflow(name), {})

    @overload
    def start_many(
        self, calls: Iterable[Call[R]], /, *, session: None = None
    ) -> Coroutine[None, None, list[AsyncWorkflowHandle[R]]]: ...
    @overload
    def start_many(self, calls: Iterable[Call[R]], /, *, session: SyncScope) -> list[AsyncStagedHandle[R]]: ...
    @overload
    def start_many(
        self, calls: Iterable[Call[R]], /, *, session: AsyncScope
    ) -> Coroutine[None, None, list[AsyncStagedHandle[R]]]: ...
    def start_many(self, calls: Iterable[Call[Any]], /, *, session: SyncScope | AsyncScope | None = None) -> Any:
        """Start many workflows in one transaction; takes and raises what ``DBOS.start_many`` does.

        A coroutine, except on a synchronous session. In a workflow its number is drawn now.
        """
        staged = to_stage_many(self._runtime, calls, session)
        if staged is None:
            return _start_many(self._runtime, *to_start_many(self._runtime, calls))
        staging = partial(stage_many, self._runtime, *staged)
        if session is None or isinstance(session, ASYNC_SCOPES):
            return _stage_many(self._runtime, staging)
        return once_each([AsyncStagedHandle(self._runtime, one) for one in staging()])

    # -- side by side ----------------------------------------------------------------------------

    def task(self, coroutine: Coroutine[Any, Any, R], *, name: str | None = None) -> asyncio.Task[R]:
        """Run a coroutine beside the workflow that calls this, with numbers of its own for its steps.

        Its number is drawn now. The workflow ends when it has ended: awaited where the workflow's function
        returns, cancelled where it raises. Outside a workflow, and in a step, it is ``asyncio.create_task``.

        Raises:
            StepOutsideScopeError: the caller is a task that the workflow did not open.
        """
        return open_task(self._runtime, coroutine, name=name)

    def _gathered(self, *awaitables: Awaitable[Any], return_exceptions: bool = False) -> asyncio.Future[list[Any]]:
        return gather(self._runtime, awaitables, return_exceptions=return_exceptions)

    @property
    def queues(self) -> AsyncQueues:
        """What is in the queues now; and changing, pausing and deleting them at run time."""
        return AsyncQueues(self._runtime)

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


async def _start_many(runtime: Runtime, binding: Binding, flow: Flow[list[Placed]]) -> list[AsyncWorkflowHandle[Any]]:
    placed = await async_driver_of(binding).run(flow)
    return once_each([AsyncWorkflowHandle(runtime, one.workflow_id, created=one.created) for one in placed])


async def _stage_many(runtime: Runtime, staging: Callable[[], list[Staging]]) -> list[AsyncStagedHandle[Any]]:
    return once_each([AsyncStagedHandle(runtime, one) for one in await on_async_scope(runtime, staging)])


async def _now(binding: Binding, flow: Flow[Outcome]) -> datetime:
    return cast("datetime", unwrap(await async_driver_of(binding).run(flow)))


async def _sleep(binding: Binding, flow: Flow[None]) -> None:
    await async_driver_of(binding).run(flow)


class _StepDecorator(Protocol):
    """The type of ``adbos.step(...)``: a Protocol, because the decorator that it returns is itself overloaded."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> AsyncStep[P, R]: ...


class _TransactionDecorator(Protocol):
    """The type of ``transaction(...)``: a Protocol, because the decorator that it returns is itself overloaded."""

    @overload
    def __call__(self, fn: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /) -> AsyncTransaction[S, P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[Owner, S, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTransaction[S, Concatenate[Owner, P], R]: ...


class _SessionTransactionDecorator(Protocol[S]):
    """``_TransactionDecorator`` for the sessions of one ``sessionmaker``."""

    @overload
    def __call__(self, fn: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /) -> AsyncTransaction[S, P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[Owner, S, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTransaction[S, Concatenate[Owner, P], R]: ...
