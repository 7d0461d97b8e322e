"""What a step function becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar, cast

from dbos_orm._callables import AwaitedWhenCalled, describe_as
from dbos_orm._context import Frame
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows.stepping import StepCall, step
from dbos_orm._outcomes import unwrap
from dbos_orm._runtime import Runtime, body_frame
from dbos_orm._settings import StepSettings
from dbos_orm.handles import async_driver_of

P = ParamSpec("P")
R = TypeVar("R")


class _AnyStep(Generic[P, R]):
    def __init__(self, runtime: Runtime, name: str, function: Callable[..., Any], settings: StepSettings) -> None:
        self._runtime = runtime
        self._function = function
        self._settings = settings
        self.name = name
        describe_as(self, function)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self._runtime.application.name!r}>"

    def _drawn(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Binding, Frame, StepCall] | None:
        """The step with its number, drawn now, in the order of the calls; None where it is a plain call."""
        frame = body_frame(self._runtime, self.name)
        if frame is None:
            return None
        call = StepCall(frame.scope.draw(), self.name, self._function, args, kwargs, self._settings)
        return self._runtime.bound(self.name), frame, call


class Step(_AnyStep[P, R]):
    """A function whose outcome is recorded when a workflow calls it, and not computed again after that.

    Outside a workflow, and inside another step, it is the plain function.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step, or give what is recorded of it."""
        drawn = self._drawn(args, kwargs)
        if drawn is None:
            return cast("R", self._function(*args, **kwargs))
        binding, frame, call = drawn
        return cast("R", unwrap(binding.driver.run(step(binding.environment, frame, call))))


class AsyncStep(AwaitedWhenCalled, _AnyStep[P, R]):
    """``Step`` for coroutines. Its number is drawn when it is called, not when it is awaited: a ``gather`` of
    calls is deterministic. A plain function runs in a thread."""

    def __init__(
        self, runtime: Runtime, name: str, function: Callable[..., Any], settings: StepSettings, *, is_sync: bool
    ) -> None:
        super().__init__(runtime, name, function, settings)
        self._is_sync = is_sync

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        """Run the step, or give what is recorded of it, when awaited."""
        drawn = self._drawn(args, kwargs)
        if drawn is not None:
            return self._run(*drawn)
        if self._is_sync:
            return self._run_plain(args, kwargs)
        return cast("Coroutine[None, None, R]", self._function(*args, **kwargs))

    async def _run(self, binding: Binding, frame: Frame, call: StepCall) -> R:
        return cast("R", unwrap(await async_driver_of(binding).run(step(binding.environment, frame, call))))

    async def _run_plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        return cast("R", await asyncio.to_thread(self._function, *args, **kwargs))
