"""What a workflow function becomes."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeAlias, TypeVar, Unpack, cast, overload

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from dbos_orm._callables import AwaitedWhenCalled, Decorated
from dbos_orm._calls import Call
from dbos_orm._context import OpenTransaction, StepKey
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows.calling import Plan, call_workflow, start_workflow
from dbos_orm._options import WorkflowOptions, checked_options, placement_of, queue_name, refuse_waiting
from dbos_orm._outbox import (
    ASYNC_SCOPES,
    AsyncScope,
    SyncScope,
    enclosing_transaction,
    on_async_scope,
    stage,
    sync_scope,
)
from dbos_orm._outcomes import unwrap
from dbos_orm._registry import RegisteredWorkflow
from dbos_orm._runtime import Runtime
from dbos_orm._starting import Parent, entry_of, parent_frame, payload_of, plan, start_of
from dbos_orm._store.starting import Start
from dbos_orm.errors import ConfigurationError, NotRegisteredError
from dbos_orm.handles import AsyncStagedHandle, AsyncWorkflowHandle, StagedHandle, WorkflowHandle, async_driver_of

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
Owner = TypeVar("Owner")

_Target: TypeAlias = tuple[RegisteredWorkflow, tuple[Any, ...], dict[str, Any]]
_UNBOUND: Final = object()


class AnyWorkflow(Decorated, Generic[P, R]):
    """What both colours share: planning a start or a call, which happens in the caller's own task."""

    _instance: object = _UNBOUND

    def __init__(self, runtime: Runtime, registered: RegisteredWorkflow, options: WorkflowOptions) -> None:
        self._runtime = runtime
        self._registered = registered
        self._options = options
        self._describe_as(registered.function)

    @property
    def name(self) -> str:
        """The name under which runs of this workflow are stored."""
        return self._registered.name

    @property
    def version(self) -> str:
        """The version of this function's source; a run is continued only by the version that began it."""
        return self._registered.version

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self._runtime.application.name!r}>"

    def is_method_of(self, runtime: Runtime) -> RegisteredWorkflow | None:
        """What is registered of it, if it is a method that belongs to an instance of this application."""
        return self._registered if self._registered.is_method and self._runtime is runtime else None

    def scheduled_by(self, runtime: Runtime) -> RegisteredWorkflow:
        """What a schedule starts; of a method, on its instance.

        Raises:
            NotRegisteredError: it is a workflow of another application.
            ConfigurationError: it has options, which a schedule would not keep.
        """
        if self._runtime is not runtime:
            raise NotRegisteredError(self.name, [workflow.name for workflow in runtime.application.registry])
        if self._options:
            advice = "say the queue to the schedule, and a timeout in the decorator"
            raise ConfigurationError("workflow", self._options, "a workflow without options", advice)
        if not self._registered.is_method:
            return self._registered
        if self._instance is _UNBOUND:
            advice = "make one at run time: dbos.schedules.create(name, instance.method, ...)"
            raise ConfigurationError("workflow", self.name, "a function, or a method of an instance", advice)
        return self._runtime.application.registry.bound(self._registered, self._instance)

    def _bound_to(self, instance: object) -> Self:
        if instance is None or not self._registered.is_method:
            return self
        return self._as_method(_instance=instance)

    def _target(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Target:
        """What a call means. A method is bound to its instance, which then is no argument."""
        workflow = self._registered
        if workflow.is_method:
            instance = self._instance
            if instance is _UNBOUND:
                if not args:
                    raise TypeError(f"{self.name}() is a method: call it on an instance, or pass the instance first")
                instance, args = args[0], args[1:]
            workflow = self._runtime.application.registry.bound(workflow, instance)
        if workflow.coerce is not None:
            args, kwargs = workflow.coerce(args, kwargs)
        return workflow, args, kwargs

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """A call to be started later, checked now, and with the arguments as they are now; a method has its instance.

        Raises:
            TypeError, ArgumentError, SerializationError: an argument that cannot be given.
            ConfigurationError: options that contradict each other.
        """
        workflow, arguments, keywords = self._target(args, kwargs)
        application = self._runtime.application
        placement_of(workflow, self._options, application.registry)
        payload = payload_of(application, workflow, arguments, keywords)
        return Call(application.registry, workflow, arguments, keywords, self._options, payload)

    def _merged(self, options: WorkflowOptions) -> WorkflowOptions:
        checked = checked_options(options)
        if "queue" in checked:
            checked["queue"] = queue_name(checked["queue"], self._runtime.application.registry)
        return cast("WorkflowOptions", {**self._options, **checked})

    def _to_start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Binding, Plan]:
        binding = self._runtime.bound(f"{self.name}.start()")
        workflow, args, kwargs = self._target(args, kwargs)
        frame = parent_frame(self._runtime, self.name)
        place = None if frame is None else (frame, frame.scope.draw())
        launch = self._runtime.executing if frame is None else frame.run.launch
        if self._options.get("version", self.version) != self.version:
            launch = None  # another process has the version that was asked for
        if launch is not None and launch.is_inline:
            launch = None  # stored, to be run by whoever waits for it
        places = self._runtime.places
        made = plan(
            binding.application, workflow, args, kwargs, self._options, launch=launch, place=place, places=places
        )
        return binding, made

    def _to_join(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Session | Connection, Start] | None:
        """A start in the transaction that is running here; None if none is."""
        enclosing = enclosing_transaction(self._runtime, self.name, f"{self.name}.start()")
        return None if enclosing is None else self._within(enclosing, args, kwargs)

    def _to_stage(
        self, scope: SyncScope | AsyncScope, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Session | Connection, Start]:
        """A start in the caller's transaction."""
        operation = f"{self.name}.start_in()"
        given = sync_scope(scope, operation)
        enclosing = enclosing_transaction(self._runtime, self.name, operation, given)
        return (
            (given, self._start_of(None, args, kwargs)) if enclosing is None else self._within(enclosing, args, kwargs)
        )

    def _within(
        self, enclosing: OpenTransaction, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Session | Connection, Start]:
        return sync_scope(enclosing.session, f"{self.name}.start()"), self._start_of(enclosing, args, kwargs)

    def _start_of(self, enclosing: OpenTransaction | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Start:
        workflow, args, kwargs = self._target(args, kwargs)
        parent, frame = None, self._runtime.frame()
        if enclosing is not None and frame is not None and frame.step is not None:
            path = frame.step.key.path
            parent = Parent(frame.run, path, f"-{path}-{enclosing.number_start()}")
        application, options = self._runtime.application, self._options
        payload = payload_of(application, workflow, args, kwargs)
        entry = entry_of(application, workflow, payload, options, launch=None, parent=parent)
        return start_of(entry, options)

    def _to_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Binding, Plan, StepKey | None]:
        binding, launch = self._runtime.launched(f"calling {self.name}")
        workflow, args, kwargs = self._target(args, kwargs)
        refuse_waiting(workflow, self._options)
        pinned = self._options.get("version", self.version)
        if pinned != self.version:
            advice = "start it: a process that has this version runs it"
            raise ConfigurationError("version", pinned, f"{self.version!r}, to be called in this process", advice)
        frame = parent_frame(self._runtime, self.name)
        place = None if frame is None else (frame, frame.scope.draw())
        result_key = None if frame is None else frame.scope.draw()
        made = plan(binding.application, workflow, args, kwargs, self._options, launch=launch, place=place)
        return binding, made, result_key


class Workflow(AnyWorkflow[P, R]):
    """A durable function. Calling it runs it here and returns its result; ``start`` runs it in the background.

    Whatever happens to the process, a run that was stored is continued from its last recorded step until
    it has an outcome. Inside another workflow it is a child, recorded there. A method is called on its instance,
    which is registered (``dbos.register``).
    """

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> Workflow[P, R]: ...
    @overload
    def __get__(self: Workflow[Concatenate[Owner, Q], R], instance: Owner, owner: type[Any], /) -> Workflow[Q, R]: ...
    def __get__(self, instance: Any, owner: Any, /) -> Any:
        return self._bound_to(instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the workflow in the calling thread and return its result.

        With ``options(workflow_id=...)`` of a known workflow: wait for that one, and return its result.

        Raises:
            NotLaunchedError: nothing is executed in this process.
            WorkflowCancelledError, WorkflowTimeoutError: it was cancelled, or met its deadline.
        """
        binding, made, result_key = self._to_call(args, kwargs)
        outcome = binding.driver.run(call_workflow(binding.environment, made, result_key))
        return cast("R", unwrap(outcome))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Store the workflow, run it in the background, and return when it is stored.

        In a process that is bound and not launched, any launched process of the application runs it. In a
        transaction (``@dbos.transaction``) the start is a part of that transaction, as with ``start_in``.
        """
        staged = self._to_join(args, kwargs)
        if staged is not None:
            return StagedHandle(self._runtime, stage(self._runtime, *staged))
        binding, made = self._to_start(args, kwargs)
        started = binding.driver.run(start_workflow(binding.environment, made))
        return WorkflowHandle(self._runtime, started.workflow_id, created=started.created)

    @overload
    def start_in(self, session: SyncScope, /, *args: P.args, **kwargs: P.kwargs) -> StagedHandle[R]: ...
    @overload
    def start_in(
        self, session: AsyncScope, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[None, None, StagedHandle[R]]: ...
    def start_in(self, session: SyncScope | AsyncScope, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Start the workflow in a transaction of the caller's: its commit is the start, its rollback leaves nothing.

        On a Session, scoped_session or Connection; on their asynchronous kinds it is a coroutine. Nothing is flushed,
        committed or expired, and it works before the application has a database. Any launched process runs it.

        Raises:
            SessionMisuseError: the session is closed, in autocommit, or of another database.
            StartInStepError: a plain step is running here.
            ConflictingWorkflowError, WorkflowExistsError: the ID is taken.
        """
        staged = self._to_stage(session, args, kwargs)
        if isinstance(session, ASYNC_SCOPES):
            return self._start_staged(*staged)
        return StagedHandle(self._runtime, stage(self._runtime, *staged))

    async def _start_staged(self, scope: Session | Connection, start: Start) -> StagedHandle[R]:
        staging = await on_async_scope(self._runtime, partial(stage, self._runtime, scope, start))
        return StagedHandle(self._runtime, staging)

    def options(self, **options: Unpack[WorkflowOptions]) -> Workflow[P, R]:
        """The same workflow, to be called or started with these options; options said before are kept.

        Raises:
            ConfigurationError: an option that is unknown, or has a value that cannot work.
        """
        return self._with(_options=self._merged(options))

    def handle(self, workflow_id: str, /) -> WorkflowHandle[R]:
        """A handle of a run of this workflow, typed; nothing is looked up."""
        return WorkflowHandle(self._runtime, workflow_id)


class AsyncWorkflow(AwaitedWhenCalled, AnyWorkflow[P, R]):
    """``Workflow`` for ``async def`` functions; a call and ``start`` are to be awaited."""

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> AsyncWorkflow[P, R]: ...
    @overload
    def __get__(
        self: AsyncWorkflow[Concatenate[Owner, Q], R], instance: Owner, owner: type[Any], /
    ) -> AsyncWorkflow[Q, R]: ...
    def __get__(self, instance: Any, owner: Any, /) -> Any:
        return self._bound_to(instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        """Run the workflow in the task that awaits this, and return its result; raises as ``Workflow``."""
        return self._call(*self._to_call(args, kwargs))

    async def _call(self, binding: Binding, made: Plan, result_key: StepKey | None) -> R:
        outcome = await async_driver_of(binding).run(call_workflow(binding.environment, made, result_key))
        return cast("R", unwrap(outcome))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, AsyncWorkflowHandle[R]]:
        """Store the workflow and run it in the background, as a task of the loop that launched the application."""
        staged = self._to_join(args, kwargs)
        if staged is not None:
            return self._start_staged(*staged)
        return self._start(*self._to_start(args, kwargs))

    @overload
    def start_in(self, session: SyncScope, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStagedHandle[R]: ...
    @overload
    def start_in(
        self, session: AsyncScope, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[None, None, AsyncStagedHandle[R]]: ...
    def start_in(self, session: SyncScope | AsyncScope, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Start the workflow in a transaction of the caller's; takes and raises what ``Workflow.start_in`` does."""
        staged = self._to_stage(session, args, kwargs)
        if isinstance(session, ASYNC_SCOPES):
            return self._start_staged(*staged)
        return AsyncStagedHandle(self._runtime, stage(self._runtime, *staged))

    async def _start_staged(self, scope: Session | Connection, start: Start) -> AsyncStagedHandle[R]:
        staging = await on_async_scope(self._runtime, partial(stage, self._runtime, scope, start))
        return AsyncStagedHandle(self._runtime, staging)

    async def _start(self, binding: Binding, made: Plan) -> AsyncWorkflowHandle[R]:
        started = await async_driver_of(binding).run(start_workflow(binding.environment, made))
        return AsyncWorkflowHandle(self._runtime, started.workflow_id, created=started.created)

    def options(self, **options: Unpack[WorkflowOptions]) -> AsyncWorkflow[P, R]:
        """The same workflow, to be called or started with these options; raises as ``Workflow.options``."""
        return self._with(_options=self._merged(options))

    def handle(self, workflow_id: str, /) -> AsyncWorkflowHandle[R]:
        """A handle of a run of this workflow, typed; nothing is looked up."""
        return AsyncWorkflowHandle(self._runtime, workflow_id)
