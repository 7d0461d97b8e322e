"""Decorators and operations for synchronous code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, tzinfo
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from sqlalchemy.orm import Session, sessionmaker

from dbos_orm._callables import session_parameter
from dbos_orm._calls import Call
from dbos_orm._futures import StepFuture
from dbos_orm._operations import AnyOperations
from dbos_orm._outbox import SyncScope, stage_many
from dbos_orm._outcomes import unwrap
from dbos_orm._queue_control import Queues
from dbos_orm._queues import Queue
from dbos_orm._retry import Retry
from dbos_orm._schedule_settings import CatchUp
from dbos_orm._schedules import Schedules
from dbos_orm._services.cron import Trigger
from dbos_orm._settings import step_settings
from dbos_orm._starting_many import once_each, to_stage_many, to_start_many
from dbos_orm._steps import Step
from dbos_orm._transactions import Transaction
from dbos_orm._workflows import Workflow
from dbos_orm.config import Duration
from dbos_orm.handles import StagedHandle, WorkflowHandle

P = ParamSpec("P")
R = TypeVar("R")
Owner = TypeVar("Owner")
Scheduled = TypeVar("Scheduled", bound=Workflow[[datetime, datetime], Any])
S = TypeVar("S", bound=Session)


class SyncOperations(AnyOperations):
    """The decorators of an application, and what a workflow may ask of it, for plain functions."""

    # -- decorators ------------------------------------------------------------------------------

    @overload
    def workflow(self, fn: Callable[P, R], /) -> Workflow[P, R]: ...
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
    ) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...
    def workflow(self, fn: Any = None, **options: Any) -> Any:
        """Make a function durable: its steps are recorded, and after any failure it continues behind the last one.

        It must call the same steps in the same order when it runs again, so everything that may differ
        (time, randomness, the outside world) belongs in steps or comes from ``dbos``. ``name`` is the
        qualified name by default; ``version`` a hash of the source; ``timeout`` begins when a run
        begins; ``max_recovery_attempts`` replaces the one of ``Config``; ``coerce`` has pydantic validate and convert
        arguments by their annotations, before anything is stored; ``queue`` is where its starts wait for their turn,
        and then it is started, not called.

        Raises:
            ConflictingRegistrationError: the name is taken.
            ConfigurationError: it cannot be a workflow (``async def``, a class method, a generator).
        """

        def decorate(function: Callable[P, R]) -> Workflow[P, R]:
            return Workflow(self._runtime, self._register_workflow(function, is_async=False, **options), {})

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
        """Start a workflow ``(scheduled_at, actual_at)`` at the times of cron text or of an APScheduler trigger.

        It stands above ``@dbos.workflow``; several schedules of one workflow need different names. Each slot is
        run once, over all processes; ``catch_up`` says what becomes of slots that passed while no process ran
        ("last": one run, of the newest). The zone is UTC by default.

        Raises:
            ConfigurationError: the times cannot be read, or the workflow takes other arguments.
            ConflictingRegistrationError: another schedule has the name.
        """

        def declare(workflow: Scheduled) -> Scheduled:
            options: dict[str, Any] = {"name": name, "timezone": timezone, "queue": queue, "catch_up": catch_up}
            self._register_schedule(workflow, schedule, **options)
            return workflow

        return declare

    @property
    def schedules(self) -> Schedules:
        """The schedules in the database: to be listed, made, changed, paused and triggered."""
        return Schedules(self._runtime)

    @overload
    def step(
        self,
        fn: Callable[P, R],
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
    ) -> Step[P, R]: ...
    @overload
    def step(
        self, *, name: str | None = None, retry: Retry | None = None, timeout: Duration | None = None
    ) -> Callable[[Callable[P, R]], Step[P, R]]: ...
    def step(
        self,
        fn: Any = None,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
    ) -> Any:
        """Record what a function returns or raises, when a workflow calls it, and never run it again after that.

        A step that a crash interrupted runs again: give other systems ``dbos.current.idempotency_key``.
        Any callable will do: ``dbos.step(httpx.get, name="fetch")(url)``.

        Raises:
            ConflictingRegistrationError: other code has the name.
        """
        settings = step_settings(retry, timeout)

        def decorate(function: Callable[P, R]) -> Step[P, R]:
            found = self._register_step(function, "step", is_async=False, name=name)
            return Step(self._runtime, found, function, settings)

        return decorate if fn is None else decorate(fn)

    @overload
    def transaction(self, fn: Callable[Concatenate[S, P], R], /) -> Transaction[S, P, R]: ...
    @overload
    def transaction(self, fn: Callable[Concatenate[Owner, S, P], R], /) -> Transaction[S, Concatenate[Owner, P], R]: ...
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
        sessionmaker: sessionmaker[S],
        name: str | None = None,
        isolation_level: str | None = None,
        max_attempts: int | None = None,
        statement_timeout: Duration | None = None,
    ) -> _SessionTransactionDecorator[S]: ...
    def transaction(self, fn: Any = None, *, name: str | None = None, **options: Any) -> Any:
        """Make a function one database transaction that commits together with its checkpoint: exactly once.

        Its first parameter is the Session, which callers do not give. Conflicts with other transactions are
        tried again up to ``max_attempts`` times, in a new transaction each time.

        Raises:
            ConfigurationError: no parameter takes the Session.
        """

        settings = self._transaction_settings(options, is_async=False)

        def decorate(function: Callable[..., Any]) -> Transaction[Any, Any, Any]:
            found = self._register_step(function, "transaction", is_async=False, name=name)
            session = session_parameter(function, is_async=False)
            return Transaction(self._runtime, found, function, session=session, settings=settings)

        return decorate if fn is None else decorate(fn)

    # -- from outside ----------------------------------------------------------------------------

    def handle(self, workflow_id: str, /) -> WorkflowHandle[Any]:
        """A handle of any workflow, by its ID; nothing is looked up."""
        return WorkflowHandle(self._runtime, workflow_id)

    def named(self, name: str, /) -> Workflow[..., Any]:
        """The workflow of this name, for who has only its name; what it takes and returns is not checked by types.

        Raises:
            NotRegisteredError: no workflow of this process has it; the known ones are listed.
        """
        return Workflow(self._runtime, self._runtime.application.registry.workflow(name), {})

    @overload
    def start_many(self, calls: Iterable[Call[R]], /, *, session: None = None) -> list[WorkflowHandle[R]]: ...
    @overload
    def start_many(self, calls: Iterable[Call[R]], /, *, session: SyncScope) -> list[StagedHandle[R]]: ...
    def start_many(self, calls: Iterable[Call[Any]], /, *, session: SyncScope | None = None) -> Any:
        """Start many workflows in one transaction, of any functions and with any options: all of them, or none.

        Thousands take a second. Whoever claims them runs them, this process or another one. With ``session``,
        and in a transaction (``@dbos.transaction``), they are a part of that transaction, as with ``start_in``. In a
        workflow it is one step. For one ID there is one handle, however often it comes up.

        Raises:
            ConfigurationError: what is given is no call of this application's, or cannot be started so.
            QueueNotFoundError: nobody knows the queue of one of them.
            ConflictingWorkflowError, WorkflowExistsError, DeduplicationError: another workflow is in the place of one.
            SerializationError: an argument cannot be recorded.
        """
        runtime = self._runtime
        staged = to_stage_many(runtime, calls, session)
        if staged is not None:
            return once_each([StagedHandle(runtime, one) for one in stage_many(runtime, *staged)])
        binding, flow = to_start_many(runtime, calls)
        return once_each(
            [WorkflowHandle(runtime, one.workflow_id, created=one.created) for one in binding.driver.run(flow)]
        )

    def gather(self, *awaited: WorkflowHandle[R] | StepFuture[R]) -> list[R]:
        """The results of workflows that were started and of steps that were submitted, in this order.

        The first error in this order is raised, and what comes behind it goes on.
        """
        return [each.result() for each in awaited]

    @property
    def queues(self) -> Queues:
        """What is in the queues now; and changing, pausing and deleting them at run time."""
        return Queues(self._runtime)

    # -- inside a run ----------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The session of the transaction that is running here.

        Raises:
            NotInWorkflowError: none is.
        """
        return cast("Session", self._session())

    def now(self) -> datetime:
        """The present instant, aware and in UTC; a replay gets the recorded one."""
        binding, flow = self._present()
        return cast("datetime", unwrap(binding.driver.run(flow)))

    def sleep(self, duration: Duration, /) -> None:
        """Wait, durably: the instant to wake at is recorded, and a restart waits only for the rest.

        Raises:
            NotInWorkflowError: no workflow is running here.
        """
        binding, flow = self._sleeping(duration)
        binding.driver.run(flow)


class _TransactionDecorator(Protocol):
    """The type of ``transaction(...)``: a Protocol, because the decorator that it returns is itself overloaded."""

    @overload
    def __call__(self, fn: Callable[Concatenate[S, P], R], /) -> Transaction[S, P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Owner, S, P], R], /) -> Transaction[S, Concatenate[Owner, P], R]: ...


class _SessionTransactionDecorator(Protocol[S]):
    """``_TransactionDecorator`` for the sessions of one ``sessionmaker``."""

    @overload
    def __call__(self, fn: Callable[Concatenate[S, P], R], /) -> Transaction[S, P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Owner, S, P], R], /) -> Transaction[S, Concatenate[Owner, P], R]: ...
