"""What a transactional step becomes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from dbos_orm._callables import AwaitedWhenCalled, Decorated
from dbos_orm._context import Frame, OpenTransaction, current_frame, current_transaction
from dbos_orm._drivers.binding import Binding
from dbos_orm._drivers.databases import Databases
from dbos_orm._drivers.sessions import SessionSource, source_of
from dbos_orm._flows.effects import Flow, Maker, Outcome
from dbos_orm._flows.transacting import TransactionCall, plain_transaction, transaction
from dbos_orm._futures import StepFuture, refuse_in_transaction, submit, submit_plain
from dbos_orm._outcomes import unwrap
from dbos_orm._runtime import Runtime, body_frame
from dbos_orm._settings import TransactionSettings
from dbos_orm.errors import SessionMisuseError
from dbos_orm.handles import async_driver_of

S = TypeVar("S")
P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
Owner = TypeVar("Owner")


class _AnyTransaction(Decorated, Generic[S, P, R]):
    def __init__(
        self,
        runtime: Runtime,
        name: str,
        function: Callable[..., Any],
        *,
        session: tuple[int, str],
        settings: TransactionSettings,
    ) -> None:
        self._runtime = runtime
        self._function = function
        self._position = session[0]
        self._settings = settings
        self.name = name
        self._describe_as(function, without=session[1])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self._runtime.application.name!r}>"

    def _bound_to(self, instance: object) -> Self:
        if instance is None or self._position == 0:
            return self  # the session is first: not a method, but a function that a class has an attribute of
        return self._as_method(_function=MethodType(self._function, instance), _position=0)

    def _outer(self) -> tuple[Databases, OpenTransaction] | None:
        """The transaction of this application that is running here, if one is."""
        outer, binding = current_transaction.get(), self._runtime.binding
        if outer is None or binding is None or not binding.databases.opened(outer):
            return None
        return binding.databases, outer

    def _joined(self, outer: OpenTransaction, source: SessionSource, args: tuple[Any, ...]) -> list[Any]:
        """The arguments with the session of the outer transaction, which is of the same database."""
        around = source_of(outer)
        if source.database is not around.database:
            raise SessionMisuseError(
                f"transaction {self.name!r} on {source.url} was called inside {outer.name!r} on {around.url}",
                "two databases do not commit together; call one after the other, from the workflow",
            )
        return self._with_session(outer.session, args)

    def _with_session(self, session: Any, args: tuple[Any, ...]) -> list[Any]:
        return [*args[: self._position], session, *args[self._position :]]

    def _flow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Binding, Frame | None, Flow[Outcome]]:
        """The flow of a call; of a step in a workflow, with the frame in which its number was drawn."""
        binding, frame = self._runtime.bound(self.name), body_frame(self._runtime, self.name)
        env, source = binding.environment, binding.databases.known(self._settings.sessionmaker)
        given = (self.name, self._function, self._position, args, kwargs, self._settings, source)
        if frame is None:
            return binding, None, plain_transaction(current_frame.get(), TransactionCall(*given))
        key = frame.scope.draw()
        digest = env.digest_of(key, args, kwargs)
        return binding, frame, transaction(env, frame, key, TransactionCall(*given, digest))


class Transaction(_AnyTransaction[S, P, R]):
    """A step that is one database transaction: its rows and its checkpoint are one commit, or nothing is.

    The session is given to the function and not by its callers. Outside a workflow a call opens a session
    of its own and commits it; inside another transaction on the same database it joins that one.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> Transaction[S, P, R]: ...
    @overload
    def __get__(
        self: Transaction[S, Concatenate[Owner, Q], R], instance: Owner, owner: type[Any], /
    ) -> Transaction[S, Q, R]: ...
    def __get__(self, instance: Any, owner: Any, /) -> Any:
        return self._bound_to(instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the transaction, or give what is recorded of it."""
        found = self._outer()
        if found is not None:
            databases, outer = found
            maker = self._settings.sessionmaker
            source = databases.main if maker is None else databases.locate(maker)
            return cast("R", self._function(*self._joined(outer, source, args), **kwargs))
        binding, _, flow = self._flow(args, kwargs)
        return cast("R", unwrap(binding.driver.run(flow)))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> StepFuture[R]:
        """Run the transaction beside the workflow, with a session of its own; else as ``Step.submit``.

        On SQLite transactions take turns all the same: it has one writer.
        """
        refuse_in_transaction(self.name)
        binding, frame, flow = self._flow(args, kwargs)
        if frame is None:
            return submit_plain(binding, self.name, lambda: unwrap(binding.driver.run(flow)))
        return submit(binding, frame, self.name, flow)

    def within(self, session: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function on a session of the caller's: nothing is recorded, nothing is committed."""
        return cast("R", self._function(*self._with_session(session, args), **kwargs))


class AsyncTransaction(AwaitedWhenCalled, _AnyTransaction[S, P, R]):
    """``Transaction`` for ``async def`` functions with an ``AsyncSession``."""

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> AsyncTransaction[S, P, R]: ...
    @overload
    def __get__(
        self: AsyncTransaction[S, Concatenate[Owner, Q], R], instance: Owner, owner: type[Any], /
    ) -> AsyncTransaction[S, Q, R]: ...
    def __get__(self, instance: Any, owner: Any, /) -> Any:
        return self._bound_to(instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        """Run the transaction, or give what is recorded of it, when awaited."""
        found = self._outer()
        if found is None:
            binding, _, flow = self._flow(args, kwargs)
            return self._run(binding, flow)
        databases, outer = found
        if self._settings.sessionmaker is not None:
            return self._join(outer, self._settings.sessionmaker, args, kwargs)
        return cast("Coroutine[None, None, R]", self._function(*self._joined(outer, databases.main, args), **kwargs))

    async def _join(self, outer: OpenTransaction, maker: Maker, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        source = await async_driver_of(self._runtime.bound(self.name)).sessions.locate(maker)
        return cast("R", await self._function(*self._joined(outer, source, args), **kwargs))

    async def _run(self, binding: Binding, flow: Flow[Outcome]) -> R:
        return cast("R", unwrap(await async_driver_of(binding).run(flow)))

    def within(self, session: S, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        """Run the function on a session of the caller's: nothing is recorded, nothing is committed."""
        return cast("Coroutine[None, None, R]", self._function(*self._with_session(session, args), **kwargs))
