"""``dbos.queues``: what is in the queues, and their limits at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Unpack

from sqlalchemy.engine import Connection

from dbos_orm._context import current_transaction
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows.effects import Announce, Change, Flow, Read
from dbos_orm._options import queue_name
from dbos_orm._queue_settings import QueueSettings, RateLimit, checked_rate, queue_settings, require_limits
from dbos_orm._queues import Queue
from dbos_orm._runtime import Runtime
from dbos_orm._store import queues as store
from dbos_orm._store.queues import Limit, PartitionInfo, QueueInfo
from dbos_orm.errors import ConfigurationError, NotInStepError, QueueNotFoundError, SessionMisuseError
from dbos_orm.handles import async_driver_of

QueueInfos: TypeAlias = list[QueueInfo]
"""Spelled here, because ``list`` means something else in a class that has a method of this name."""
PartitionInfos: TypeAlias = list[PartitionInfo]

T = TypeVar("T")


class QueueLimits(TypedDict, total=False):
    """Limits of a queue; None is no limit. What is not named stays as it is."""

    concurrency: int | None
    """Runs at a time over all processes."""
    worker_concurrency: int | None
    """Runs at a time in one process."""
    rate_limit: RateLimit | None
    """Starts within any period."""
    partitioned: bool
    """Whether each limit holds for each partition key by itself."""


_KNOWN: Final = sorted(QueueLimits.__annotations__)


class _AnyQueues:
    """Which flow does what, for both colours, and where it may be called."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def _all(self) -> tuple[Binding, Flow[list[QueueInfo]]]:
        binding = self._place("list")
        return binding, self._look(binding, None)

    def _one(self, queue: Queue | str) -> tuple[Binding, Flow[QueueInfo]]:
        binding, name = self._place("get"), self._name(queue)

        def flow() -> Flow[QueueInfo]:
            return (yield from self._find(binding, name))

        return binding, flow()

    def _parts(self, queue: Queue | str) -> tuple[Binding, Flow[list[PartitionInfo]]]:
        binding, name = self._place("partitions"), self._name(queue)

        def flow() -> Flow[list[PartitionInfo]]:
            yield from self._find(binding, name)
            return (yield from Read(partial(store.partitions, application=self._application, name=name)))

        return binding, flow()

    def _create(self, name: str, limits: Mapping[str, Any]) -> tuple[Binding, Flow[None]]:
        binding = self._place("create")
        settings = queue_settings(name, **_known(limits))

        def create(connection: Connection) -> None:
            differences = store.declare(connection, binding.dialect, self._application, [settings])
            if differences:
                said = f"a name that no queue has: {'; '.join(map(str, differences))}"
                raise ConfigurationError("queue", name, said, f"change it with dbos.queues.set({name!r}, ...)")

        return binding, self._change(binding, create)

    def _set(self, queue: Queue | str, limits: Mapping[str, Any]) -> tuple[Binding, Flow[None]]:
        return self._act("set", queue, partial(store.change, values=_values(limits)))

    def _pause(self, queue: Queue | str) -> tuple[Binding, Flow[None]]:
        return self._act("pause", queue, partial(store.pause, paused=True))

    def _resume(self, queue: Queue | str) -> tuple[Binding, Flow[None]]:
        return self._act("resume", queue, partial(store.pause, paused=False))

    def _delete(self, queue: Queue | str) -> tuple[Binding, Flow[None]]:
        binding, name = self._place("delete"), self._name(queue)

        def flow() -> Flow[None]:
            yield from self._find(binding, name)
            yield from self._change(binding, partial(store.remove, application=self._application, name=name))

        return binding, flow()

    def _act(self, operation: str, queue: Queue | str, verb: Callable[..., bool]) -> tuple[Binding, Flow[None]]:
        """Change the row of a queue. One that is declared in code has its row by then."""
        binding, name, application = self._place(operation), self._name(queue), self._application

        def act(connection: Connection) -> bool:
            store.fill_in(connection, binding.dialect, application, self._declared(name))
            return verb(connection, binding.dialect, application, name)

        def flow() -> Flow[None]:
            if not (yield from self._change(binding, act)):
                yield from self._find(binding, name)

        return binding, flow()

    def _find(self, binding: Binding, name: str) -> Flow[QueueInfo]:
        found = yield from self._look(binding, name)
        if not found:
            known = yield from self._look(binding, None)
            raise QueueNotFoundError(name, [one.name for one in known])
        return found[0]

    def _look(self, binding: Binding, name: str | None) -> Flow[list[QueueInfo]]:
        look = partial(store.look, application=self._application, name=name)
        found = yield from Read(look)
        stored = {one.name for one in found}
        missing = [one for one in self._declared(name) if one.name not in stored]
        if not missing:
            return found
        # No process that declares it has been launched yet.
        fill_in = partial(store.fill_in, dialect=binding.dialect, application=self._application, settings=missing)
        yield from self._change(binding, fill_in)
        return (yield from Read(look))

    def _change(self, binding: Binding, verb: Callable[[Connection], T]) -> Flow[T]:
        changed = yield from Change(verb)
        binding.environment.queues.clear()
        # Everybody looks at every queue: what waits may have got room.
        yield from Announce("", "")
        return changed

    @property
    def _application(self) -> str:
        return self._runtime.application.name

    def _name(self, queue: Queue | str) -> str:
        return queue_name(queue, self._runtime.application.registry)

    def _declared(self, name: str | None) -> list[QueueSettings]:
        declared = self._runtime.application.registry.queues
        return declared if name is None else [one for one in declared if one.name == name]

    def _place(self, verb: str) -> Binding:
        """The binding, where such a verb may be called.

        Raises:
            NotInStepError: in the body of a workflow, which a replay calls again.
            SessionMisuseError: in a transaction of the application.
        """
        operation = f"dbos.queues.{verb}()"
        if current_transaction.get() is not None:
            raise SessionMisuseError(f"{operation} in a transaction", "call it before or after that, in a step")
        frame = self._runtime.frame()
        if frame is not None and frame.step is None:
            raise NotInStepError(operation, frame.run.workflow_id)
        return self._runtime.bound(operation)


class Queues(_AnyQueues):
    """The queues of an application. Changes hold for all processes, those that run now too, and stay.

    In a workflow they belong in steps: in its body, which a replay runs again, every verb raises ``NotInStepError``.
    """

    def list(self) -> QueueInfos:
        """Every queue, in the order of the names, as it is now."""
        return self._perform(*self._all())

    def get(self, queue: Queue | str, /) -> QueueInfo:
        """A queue as it is now.

        Raises:
            QueueNotFoundError: there is none of this name.
        """
        return self._perform(*self._one(queue))

    def partitions(self, queue: Queue | str, /) -> PartitionInfos:
        """The partitions of a queue in which something waits or runs now, in the order of their keys; raises as
        ``get``."""
        return self._perform(*self._parts(queue))

    def create(self, name: str, /, **limits: Unpack[QueueLimits]) -> None:
        """Make a queue at run time. The same again changes nothing.

        Raises:
            ConfigurationError: there is one of this name with other limits, or the limits contradict each other.
        """
        self._perform(*self._create(name, limits))

    def set(self, queue: Queue | str, /, **limits: Unpack[QueueLimits]) -> None:
        """Change limits of a queue: None lifts one, and what is not named stays.

        More than is allowed now may be running: it goes on, and nothing is begun until there is room.

        Raises:
            ConfigurationError: they contradict each other or what stays, or a queue that is to be partitioned holds
                workflows without a partition key.
            QueueNotFoundError: there is none of this name.
        """
        self._perform(*self._set(queue, limits))

    def pause(self, queue: Queue | str, /) -> None:
        """Have no process begin anything more of a queue; what runs goes on, and starts are taken.

        Raises as ``get``.
        """
        self._perform(*self._pause(queue))

    def resume(self, queue: Queue | str, /) -> None:
        """Go on with a queue that was paused; raises as ``get``."""
        self._perform(*self._resume(queue))

    def delete(self, queue: Queue | str, /) -> None:
        """Delete a queue. One that code declares is there again after the next launch.

        Raises:
            QueueNotEmptyError: live workflows are in it.
            QueueNotFoundError: there is none of this name.
        """
        self._perform(*self._delete(queue))

    def _perform(self, binding: Binding, flow: Flow[T]) -> T:
        return binding.driver.run(flow)


class AsyncQueues(_AnyQueues):
    """``Queues`` for coroutines."""

    async def list(self) -> QueueInfos:
        """Every queue, in the order of the names, as it is now."""
        return await self._perform(*self._all())

    async def get(self, queue: Queue | str, /) -> QueueInfo:
        """A queue as it is now; raises as ``Queues.get``."""
        return await self._perform(*self._one(queue))

    async def partitions(self, queue: Queue | str, /) -> PartitionInfos:
        """The partitions of a queue in which something waits or runs now; raises as ``Queues.get``."""
        return await self._perform(*self._parts(queue))

    async def create(self, name: str, /, **limits: Unpack[QueueLimits]) -> None:
        """Make a queue at run time; raises as ``Queues.create``."""
        await self._perform(*self._create(name, limits))

    async def set(self, queue: Queue | str, /, **limits: Unpack[QueueLimits]) -> None:
        """Change limits of a queue: None lifts one, and what is not named stays; raises as ``Queues.set``."""
        await self._perform(*self._set(queue, limits))

    async def pause(self, queue: Queue | str, /) -> None:
        """Have no process begin anything more of a queue; raises as ``Queues.get``."""
        await self._perform(*self._pause(queue))

    async def resume(self, queue: Queue | str, /) -> None:
        """Go on with a queue that was paused; raises as ``Queues.get``."""
        await self._perform(*self._resume(queue))

    async def delete(self, queue: Queue | str, /) -> None:
        """Delete a queue; raises as ``Queues.delete``."""
        await self._perform(*self._delete(queue))

    async def _perform(self, binding: Binding, flow: Flow[T]) -> T:
        return await async_driver_of(binding).run(flow)


def _known(limits: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in limits.items():
        if name not in _KNOWN:
            raise ConfigurationError(name, value, f"a limit of {_KNOWN}", "leave it out")
    return limits


def _values(limits: Mapping[str, Any]) -> dict[str, Limit]:
    """The columns of the limits, each checked by itself."""
    values: dict[str, Limit] = dict(_known(limits))
    require_limits(limits.get("concurrency"), limits.get("worker_concurrency"))
    if "rate_limit" in limits:
        limit, period = checked_rate(limits["rate_limit"])
        values |= {"rate_limit": limit, "rate_period": None if period is None else timedelta(seconds=period)}
    if not isinstance(limits.get("partitioned", False), bool):
        raise ConfigurationError("partitioned", limits["partitioned"], "True or False", "leave it out to keep it")
    return values
