"""``dbos.schedules``: the schedules of an application, at run time."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from dbos_orm._context import current_transaction
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows import operating
from dbos_orm._flows.effects import Flow, Outcome
from dbos_orm._flows.environment import Environment
from dbos_orm._outcomes import Returned, unwrap
from dbos_orm._queues import Queue
from dbos_orm._runtime import Runtime, body_frame
from dbos_orm._schedule_settings import CatchUp
from dbos_orm._services import scheduling
from dbos_orm._services.scheduling import UNCHANGED, ScheduleDefinition, ScheduleInfo, Started, Unchanged
from dbos_orm._workflows import AnyWorkflow
from dbos_orm.errors import ConfigurationError, SessionMisuseError
from dbos_orm.handles import AsyncWorkflowHandle, WorkflowHandle, async_driver_of

T = TypeVar("T")

# Inside of the classes `list` is their method.
_Infos: TypeAlias = list[ScheduleInfo]
_Handles: TypeAlias = list[WorkflowHandle[Any]]
_AsyncHandles: TypeAlias = list[AsyncWorkflowHandle[Any]]
_Starts: TypeAlias = list[Started]

_NAMESPACE: Final = uuid.UUID("8d1c3f0e-6d3e-4c0a-9b53-0f3c6a1f6e55")


class _Asked(NamedTuple, Generic[T]):
    """A flow whose outcome is, if it is no error, a value of this type."""

    binding: Binding
    flow: Flow[Outcome]


class _AnySchedules:
    """What both colours share: which flow does what. In a workflow its answer is recorded, and not asked for again."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._runtime.application.name!r}>"

    def _asked(self, name: str, ask: Callable[[Environment], Flow[T]], *, reads: bool = False) -> _Asked[T]:
        operation = f"schedules.{name}"
        binding = self._runtime.bound(f"{operation}()")
        if not reads and current_transaction.get() is not None:
            raise SessionMisuseError(f"{operation}() in a transaction", "do it before or after it, in the workflow")
        frame = body_frame(self._runtime, f"{operation}()")

        def answer() -> Flow[Outcome]:
            found = Returned((yield from ask(binding.environment)))
            if self._runtime.look_for_slots is not None and not reads:
                self._runtime.look_for_slots()
            return found

        if frame is None:
            return _Asked(binding, answer())
        key = frame.scope.draw()
        return _Asked(binding, operating.recorded(binding.environment, frame, key, operation, "status", answer))

    def _creating(
        self, name: str, definitions: Iterable[ScheduleDefinition], *, replace: bool = False
    ) -> _Asked[_Infos]:
        prepared = scheduling.prepare_all(self._runtime, definitions)
        return self._asked(name, partial(scheduling.create, prepared=prepared, replace=replace))

    def _changing(self, schedule: str, **values: Any) -> _Asked[ScheduleInfo]:
        application = self._runtime.application
        changes = scheduling.checked_changes(application.codec, application.registry, **values)

        def ask(env: Environment) -> Flow[ScheduleInfo]:
            return scheduling.change(env, schedule, scheduling.changed(env, changes))

        return self._asked("set", ask)

    def _resuming(self, schedule: str) -> _Asked[ScheduleInfo]:
        return self._asked("resume", lambda env: scheduling.change(env, schedule, scheduling.resumed(env)))

    def _pausing(self, schedule: str) -> _Asked[ScheduleInfo]:
        return self._asked("pause", lambda env: scheduling.change(env, schedule, scheduling.paused))

    def _triggering(self, schedule: str) -> _Asked[_Starts]:
        application = self._runtime.application
        frame = body_frame(self._runtime, "schedules.trigger()")
        # A workflow that is interrupted before this is recorded asks again, for the same run.
        place = None if frame is None else f"{frame.run.workflow_id} {frame.scope.path} {frame.scope.drawn}"
        suffix = None if place is None else str(uuid.uuid5(_NAMESPACE, place))
        ask = partial(scheduling.trigger, application=application, name=schedule, suffix=suffix)
        return self._asked("trigger", ask)

    def _backfilling(self, schedule: str, start: datetime, end: datetime) -> _Asked[_Starts]:
        given: dict[str, Any] = {"start": start, "end": end}
        for field, value in given.items():
            if not isinstance(value, datetime) or value.utcoffset() is None:
                raise ConfigurationError(field, value, "a datetime with a time zone", "pass datetime(..., tzinfo=UTC)")
        if start > end:
            raise ConfigurationError("start", start, f"an instant before the end, {end}", "swap them")
        application = self._runtime.application
        ask = partial(scheduling.backfill, application=application, name=schedule, start=start, end=end)
        return self._asked("backfill", ask)


class Schedules(_AnySchedules):
    """The schedules of one application: those that code declares, since its launch, and those made at run time.

    Every method but ``create``, ``create_many`` and ``apply`` raises ``ScheduleNotFoundError`` for a name that no
    schedule has.
    """

    def list(self) -> _Infos:
        """Every schedule, by name."""
        return self._do(self._asked("list", scheduling.listed, reads=True))

    def get(self, name: str, /) -> ScheduleInfo:
        """One schedule."""
        return self._do(self._asked("get", partial(scheduling.described, name=name), reads=True))

    def create(
        self,
        name: str,
        workflow: AnyWorkflow[..., Any] | str,
        expression: str,
        *,
        timezone: str | tzinfo = "UTC",
        queue: Queue | str | None = None,
        context: Any = None,
        catch_up: CatchUp = "last",
    ) -> ScheduleInfo:
        """Have a workflow started at the times of cron text, from now on.

        The workflow takes ``(scheduled_at, actual_at)``, and ``context`` as a third argument if there is one. It
        must be registered in this process, and is run by processes where it is.

        Raises:
            ScheduleExistsError: the name is taken.
            NotRegisteredError: the workflow is not of this application.
            ConfigurationError: the text, the zone or another option cannot work.
            QueueNotFoundError: there is no such queue.
        """
        definition = ScheduleDefinition(name, workflow, expression, timezone, queue, context, catch_up)
        return self.create_many([definition])[0]

    def create_many(self, definitions: Iterable[ScheduleDefinition], /) -> _Infos:
        """Make all of them in one transaction, or none; raises as ``create``."""
        return self._do(self._creating("create_many", definitions))

    def apply(self, definitions: Iterable[ScheduleDefinition], /) -> _Infos:
        """Make all of them in one transaction, or change those that exist to what is given; others stay.

        What is paused stays paused. Raises as ``create``, but for names that are taken.
        """
        return self._do(self._creating("apply", definitions, replace=True))

    def set(
        self,
        name: str,
        /,
        *,
        expression: str | None = None,
        timezone: str | tzinfo | None = None,
        queue: Queue | str | Unchanged | None = UNCHANGED,
        context: Any = UNCHANGED,
        catch_up: CatchUp | None = None,
    ) -> ScheduleInfo:
        """Change what is given, and leave the rest. A new time begins at the present.

        What code declares comes back at the next launch.
        """
        return self._do(
            self._changing(
                name, expression=expression, timezone=timezone, queue=queue, context=context, catch_up=catch_up
            )
        )

    def pause(self, name: str, /) -> ScheduleInfo:
        """Run nothing of it until ``resume``, also after the next launch; runs that were started go on."""
        return self._do(self._pausing(name))

    def resume(self, name: str, /) -> ScheduleInfo:
        """Go on with the next slot; those that passed meanwhile are not caught up (``backfill`` does that)."""
        return self._do(self._resuming(name))

    def trigger(self, name: str, /) -> WorkflowHandle[Any]:
        """Start a run now, beside those of the slots; ``scheduled_at`` is the present. Paused ones, too."""
        return self._handles(self._do(self._triggering(name)))[0]

    def backfill(self, name: str, /, start: datetime, end: datetime) -> _Handles:
        """Start the runs of every slot from ``start`` to before ``end`` that has passed, in their order.

        Each has the ID of its slot: a slot that was run already is not run again, and ``created`` is False.
        """
        return self._handles(self._do(self._backfilling(name, start, end)))

    def delete(self, name: str, /) -> None:
        """Remove a schedule; its runs stay. One that code declares comes back at the next launch: pause it instead."""
        self._do(self._asked("delete", partial(scheduling.delete, name=name)))

    def _do(self, asked: _Asked[T]) -> T:
        value: T = unwrap(asked.binding.driver.run(asked.flow))
        return value

    def _handles(self, started: _Starts) -> _Handles:
        return [WorkflowHandle(self._runtime, workflow_id, created=created) for workflow_id, created in started]


class AsyncSchedules(_AnySchedules):
    """``Schedules`` for coroutines."""

    async def list(self) -> _Infos:
        """Every schedule, by name."""
        return await self._do(self._asked("list", scheduling.listed, reads=True))

    async def get(self, name: str, /) -> ScheduleInfo:
        """One schedule."""
        return await self._do(self._asked("get", partial(scheduling.described, name=name), reads=True))

    async def create(
        self,
        name: str,
        workflow: AnyWorkflow[..., Any] | str,
        expression: str,
        *,
        timezone: str | tzinfo = "UTC",
        queue: Queue | str | None = None,
        context: Any = None,
        catch_up: CatchUp = "last",
    ) -> ScheduleInfo:
        """Have a workflow started at the times of cron text, from now on; as ``Schedules.create``."""
        definition = ScheduleDefinition(name, workflow, expression, timezone, queue, context, catch_up)
        return (await self.create_many([definition]))[0]

    async def create_many(self, definitions: Iterable[ScheduleDefinition], /) -> _Infos:
        """Make all of them in one transaction, or none."""
        return await self._do(self._creating("create_many", definitions))

    async def apply(self, definitions: Iterable[ScheduleDefinition], /) -> _Infos:
        """Make all of them in one transaction, or change those that exist to what is given; others stay."""
        return await self._do(self._creating("apply", definitions, replace=True))

    async def set(
        self,
        name: str,
        /,
        *,
        expression: str | None = None,
        timezone: str | tzinfo | None = None,
        queue: Queue | str | Unchanged | None = UNCHANGED,
        context: Any = UNCHANGED,
        catch_up: CatchUp | None = None,
    ) -> ScheduleInfo:
        """Change what is given, and leave the rest; as ``Schedules.set``."""
        return await self._do(
            self._changing(
                name, expression=expression, timezone=timezone, queue=queue, context=context, catch_up=catch_up
            )
        )

    async def pause(self, name: str, /) -> ScheduleInfo:
        """Run nothing of it until ``resume``, also after the next launch; runs that were started go on."""
        return await self._do(self._pausing(name))

    async def resume(self, name: str, /) -> ScheduleInfo:
        """Go on with the next slot; those that passed meanwhile are not caught up (``backfill`` does that)."""
        return await self._do(self._resuming(name))

    async def trigger(self, name: str, /) -> AsyncWorkflowHandle[Any]:
        """Start a run now, beside those of the slots; ``scheduled_at`` is the present. Paused ones, too."""
        return self._handles(await self._do(self._triggering(name)))[0]

    async def backfill(self, name: str, /, start: datetime, end: datetime) -> _AsyncHandles:
        """Start the runs of every slot from ``start`` to before ``end`` that has passed, in their order."""
        return self._handles(await self._do(self._backfilling(name, start, end)))

    async def delete(self, name: str, /) -> None:
        """Remove a schedule; its runs stay. One that code declares comes back at the next launch: pause it instead."""
        await self._do(self._asked("delete", partial(scheduling.delete, name=name)))

    async def _do(self, asked: _Asked[T]) -> T:
        value: T = unwrap(await async_driver_of(asked.binding).run(asked.flow))
        return value

    def _handles(self, started: _Starts) -> _AsyncHandles:
        return [AsyncWorkflowHandle(self._runtime, workflow_id, created=created) for workflow_id, created in started]
