"""What a step function becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, Unpack, cast, overload

from dbos_orm._callables import AwaitedWhenCalled, Decorated, is_method, signature_of
from dbos_orm._context import Frame, current_frame, current_transaction
from dbos_orm._drivers.binding import Binding
from dbos_orm._drivers.time_limits import await_within, call_within, call_within_async
from dbos_orm._flows.stepping import StepCall, step
from dbos_orm._futures import StepFuture, refuse_in_transaction, submit, submit_plain
from dbos_orm._outcomes import unwrap
from dbos_orm._registry import RegisteredWorkflow
from dbos_orm._runtime import Runtime, body_frame
from dbos_orm._settings import StepOptions, StepSettings, with_options
from dbos_orm._time_limits import TimeLimit
from dbos_orm._workflows import AsyncWorkflow, Workflow
from dbos_orm.errors import ConfigurationError
from dbos_orm.handles import AsyncWorkflowHandle, WorkflowHandle, async_driver_of

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
Owner = TypeVar("Owner")


_STARTED_VERSION: Final = "step"
"""One for all steps that are started: a workflow of one step is the same whatever the step does."""


class _AnyStep(Decorated, Generic[P, R]):
    _is_async = False

    def __init__(self, runtime: Runtime, name: str, function: Callable[..., Any], settings: StepSettings) -> None:
        self._runtime = runtime
        self._function = function
        self._settings = settings
        self.name = name
        self._describe_as(function)
        self._started = None if is_method(function) else self._as_workflow(function)
        if self._started is not None:
            runtime.application.registry.add_startable_step(self._started)

    def _as_workflow(self, function: Callable[..., Any]) -> RegisteredWorkflow:
        """The workflow that calls this step and nothing else; its name cannot be that of a function."""
        called = cast("Callable[..., Any]", self)
        return RegisteredWorkflow(
            name=f"step:{self.name}",
            function=_calling_async(called) if self._is_async else _calling(called),
            version=_STARTED_VERSION,
            is_async=self._is_async,
            signature=signature_of(function),
        )

    def _startable(self) -> RegisteredWorkflow:
        if self._started is None:
            raise ConfigurationError(
                "start",
                self.name,
                "a step that is a function: a method needs its instance to be continued",
                "start a workflow method that calls it",
            )
        return self._started

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self._runtime.application.name!r}>"

    def _bound_to(self, instance: object, owner: type[Any]) -> Self:
        # As the function itself would be bound: a builtin, or an object that is called, is not.
        bind = getattr(self._function, "__get__", None)
        return self if instance is None or bind is None else self._as_method(_function=bind(instance, owner))

    def _drawn(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Binding, Frame, StepCall] | None:
        """The step with its number, drawn now, in the order of the calls; None where it is a plain call."""
        frame = body_frame(self._runtime, self.name)
        if frame is None:
            return None
        binding, key = self._runtime.bound(self.name), frame.scope.draw()
        digest = binding.environment.digest_of(key, args, kwargs)
        return binding, frame, StepCall(key, self.name, self._function, args, kwargs, self._settings, digest)

    def _around(self, call: Callable[[], Any]) -> Callable[[], Any]:
        return self._runtime.application.surroundings.around(None, call)

    def _plain_timeout(self) -> timedelta | None:
        """The time limit of a plain call: none in a transaction, whose session belongs to one thread and task."""
        return None if current_transaction.get() is not None else self._settings.timeout


class Step(_AnyStep[P, R]):
    """A function whose outcome is recorded when a workflow calls it, and not computed again after that.

    Outside a workflow, and inside another step, it is the plain function.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> Step[P, R]: ...
    @overload
    def __get__(self: Step[Concatenate[Owner, Q], R], instance: Owner, owner: type[Any], /) -> Step[Q, R]: ...
    def __get__(self, instance: Any, owner: Any, /) -> Any:
        return self._bound_to(instance, owner)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step, or give what is recorded of it."""
        drawn = self._drawn(args, kwargs)
        if drawn is None:
            return self._plain(args, kwargs)
        binding, frame, call = drawn
        return cast("R", unwrap(binding.driver.run(step(binding.environment, frame, call))))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> StepFuture[R]:
        """Run the step beside the workflow, on one of the library's threads; its number is drawn now.

        The workflow ends when it has ended, whether its result is asked for or not. Elsewhere it is a plain call
        in a thread.

        Raises:
            SessionMisuseError: a transaction is running here, whose session belongs to its thread.
        """
        refuse_in_transaction(self.name)
        drawn = self._drawn(args, kwargs)
        if drawn is None:
            return submit_plain(self._runtime.binding, self.name, lambda: self._plain(args, kwargs))
        binding, frame, call = drawn
        return submit(binding, frame, self.name, step(binding.environment, frame, call))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Start a workflow that calls this step, as its decorator says, and nothing else; its name is ``step:{name}``.

        Else as ``Workflow.start``.

        Raises:
            ConfigurationError: the step is a method.
        """
        return Workflow[P, R](self._runtime, self._startable(), {}).start(*args, **kwargs)

    def options(self, **options: Unpack[StepOptions]) -> Step[P, R]:
        """The same step, to be called with these options; options said before are kept.

        Raises:
            ConfigurationError: an option that is unknown, or has a value that cannot work.
        """
        return self._with(_settings=with_options(self._settings, options))

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        timeout = self._plain_timeout()
        if timeout is None:
            return cast("R", self._function(*args, **kwargs))
        with _attempt_within(self.name, timeout) as limit:
            return cast("R", unwrap(call_within(limit, self._around(partial(self._function, *args, **kwargs)))))


class AsyncStep(AwaitedWhenCalled, _AnyStep[P, R]):
    """``Step`` for coroutines. Its number is drawn when it is called, not when it is awaited: a ``gather`` of
    calls is deterministic. A plain function runs in a thread."""

    _is_async = True

    def __init__(
        self, runtime: Runtime, name: str, function: Callable[..., Any], settings: StepSettings, *, is_sync: bool
    ) -> None:
        super().__init__(runtime, name, function, settings)
        self._is_sync = is_sync

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> AsyncStep[P, R]: ...
    @overload
    def __get__(self: AsyncStep[Concatenate[Owner, Q], R], instance: Owner, owner: type[Any], /) -> AsyncStep[Q, R]: ...
    def __get__(self, instance: Any, owner: Any, /) -> Any:
        return self._bound_to(instance, owner)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        """Run the step, or give what is recorded of it, when awaited."""
        drawn = self._drawn(args, kwargs)
        if drawn is not None:
            return self._run(*drawn)
        timeout = self._plain_timeout()
        if timeout is not None:
            return self._run_limited(timeout, partial(self._function, *args, **kwargs))
        if self._is_sync:
            return self._run_plain(args, kwargs)
        return cast("Coroutine[None, None, R]", self._function(*args, **kwargs))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, AsyncWorkflowHandle[R]]:
        """Start a workflow that calls this step; as ``Step.start``."""
        return AsyncWorkflow[P, R](self._runtime, self._startable(), {}).start(*args, **kwargs)

    def options(self, **options: Unpack[StepOptions]) -> AsyncStep[P, R]:
        """The same step, to be called with these options; raises as ``Step.options``."""
        return self._with(_settings=with_options(self._settings, options))

    async def _run(self, binding: Binding, frame: Frame, call: StepCall) -> R:
        return cast("R", unwrap(await async_driver_of(binding).run(step(binding.environment, frame, call))))

    async def _run_plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        return cast("R", await asyncio.to_thread(self._around(partial(self._function, *args, **kwargs))))

    async def _run_limited(self, timeout: timedelta, call: Callable[[], Any]) -> R:
        with _attempt_within(self.name, timeout) as limit:
            if self._is_sync:
                return cast("R", unwrap(await call_within_async(limit, self._around(call))))
            return cast("R", unwrap(await await_within(limit, call())))


def _calling(step: Callable[..., Any]) -> Callable[..., Any]:
    def call_step(*args: Any, **kwargs: Any) -> Any:
        return step(*args, **kwargs)

    return call_step


def _calling_async(step: Callable[..., Any]) -> Callable[..., Any]:
    async def call_step(*args: Any, **kwargs: Any) -> Any:
        return await step(*args, **kwargs)

    return call_step


@contextmanager
def _attempt_within(step: str, timeout: timedelta) -> Iterator[TimeLimit]:
    """The time limit of a plain call, which begins now; in a step, the code of the call may ask for it there."""
    frame = current_frame.get()
    outer = None if frame is None else frame.step
    if frame is None or outer is None:
        yield TimeLimit(step, timeout)
        return
    limit = TimeLimit(step, timeout, outer.limit)
    token = current_frame.set(frame._replace(step=outer._replace(limit=limit)))
    try:
        yield limit
    finally:
        current_frame.reset(token)
