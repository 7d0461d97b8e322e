"""Performs effects in the calling task; the database is reached through the service loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Self, TypeVar

from dbos_orm._context import OpenTransaction, Run, Scope, current_frame, current_transaction, here
from dbos_orm._drivers import committer as commits
from dbos_orm._drivers.active_runs import ActiveRuns
from dbos_orm._drivers.async_sessions import AsyncSessions
from dbos_orm._drivers.committer import EntryWriter
from dbos_orm._drivers.databases import Databases
from dbos_orm._drivers.hints import Hints
from dbos_orm._drivers.report import log_unheard, report
from dbos_orm._drivers.service_loop import CoroutineGateway
from dbos_orm._drivers.sessions import lending
from dbos_orm._drivers.time_limits import await_within, call_within_async, outcome_of
from dbos_orm._flows import effects
from dbos_orm._flows.effects import Effect, Flow, Outcome, WriteResult
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.running import execute
from dbos_orm._outcomes import OwnCancellation, Raised, Returned
from dbos_orm._store.entries import RunFinish
from dbos_orm.errors import OwnershipLost

T = TypeVar("T")


class AsyncDriver:
    """Drives flows for coroutines. One object serves all tasks and event loops of an application."""

    def __init__(
        self,
        environment: Environment,
        gateway: CoroutineGateway,
        committer: EntryWriter,
        runs: ActiveRuns,
        databases: Databases,
        hints: Hints,
    ) -> None:
        self.sessions = AsyncSessions(databases, gateway)
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where background workflows run: the loop on which the application was launched."""
        self.freed: Callable[[], None] | None = None
        """Called when a workflow begins to wait for another one, which may need its place."""
        self.lent = 0
        """Workflows that only wait for other ones: they hold no place, or those could never begin."""
        self._lending = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._environment = environment
        self._gateway = gateway
        self._committer = committer
        self._runs = runs
        self._hints = hints
        self._performers: dict[type[Effect[Any]], Callable[[Any], Awaitable[Any]]] = {
            effects.Invoke: self._invoke,
            effects.Execute: self._execute,
            effects.Spawn: self._spawn,
            effects.Write: self._write,
            effects.WriteAlone: self._write_alone,
            effects.Probe: self._probe,
            effects.Read: self._read,
            effects.Change: self._change,
            effects.Pause: self._pause,
            effects.AwaitCompletion: self._await_completion,
            effects.AwaitOpened: self._await_opened,
            effects.Announce: self._announce,
            **self.sessions.performers(),
        }

    async def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end and give its value; what it raises is raised here."""
        transaction: OpenTransaction | None = None
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, (effects.Commit, effects.Rollback)):
                    # They close it, also if they are interrupted: twice would give back another's turn.
                    transaction = None
                result = await self.perform(effect)
                if isinstance(effect, effects.OpenSession) and isinstance(result, Returned):
                    transaction = result.value
                effect = flow.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            flow.close()
            if transaction is not None:
                await asyncio.shield(self.sessions.close(transaction))

    async def perform(self, effect: Effect[T]) -> T:
        """Do what an effect asks for, and give its result."""
        result: T = await self._performers[type(effect)](effect)
        return result

    # -- the user's function ---------------------------------------------------------------------

    async def _invoke(self, effect: effects.Invoke) -> Outcome:
        frame = current_frame.set(effect.frame)
        transaction = current_transaction.set(effect.transaction)
        try:
            with lending(effect.transaction):
                if effect.frame is None:
                    return await self._called(effect)
                if effect.frame.step is None:
                    return _attributed(await self._called(effect))
                return await self._invoke_step(effect, effect.frame.run)
        finally:
            current_transaction.reset(transaction)
            current_frame.reset(frame)

    async def _called(self, effect: effects.Invoke) -> Outcome:
        call = partial(effect.function, *effect.arguments, **effect.keywords)
        try:
            if inspect.iscoroutinefunction(effect.function):
                return Returned(await call()) if effect.limit is None else await await_within(effect.limit, call())
            run = None if effect.frame is None else effect.frame.run
            inside = self._environment.surroundings.around(run, call)
            return await (_in_thread(inside) if effect.limit is None else call_within_async(effect.limit, inside))
        except BaseException as error:
            return Raised(error)

    async def _invoke_step(self, effect: effects.Invoke, run: Run) -> Outcome:
        """Call a step; if the run is ended meanwhile, cancel the step where it awaits."""
        task = asyncio.current_task()
        assert task is not None
        with _interrupted(run, task.cancel) as interrupts:
            outcome = await self._called(effect)
        if interrupts.count and run.stop is not None:
            task.uncancel()
            if isinstance(outcome, Raised) and isinstance(outcome.error, asyncio.CancelledError):
                return Raised(run.stop)
        return outcome

    async def _execute(self, effect: effects.Execute) -> Outcome:
        run = effect.run
        self._runs.begin(run)
        try:
            return await self.run(execute(self._environment, run, Scope("", here(is_async=True)), effect.body))
        except BaseException:
            run.end_with(OwnershipLost(run.workflow_id))
            _cancel_opened(run)
            raise
        finally:
            self._runs.end(run)

    async def _spawn(self, effect: effects.Spawn) -> None:
        self.spawn(effect)

    @property
    def can_spawn(self) -> bool:
        """Whether the loop that launched the application is running."""
        return self.loop is not None and self.loop.is_running()

    def spawn(self, effect: effects.Spawn) -> None:
        """``Spawn`` from any thread: a task of the application's loop, in a context of its own."""
        assert self.loop is not None
        self._runs.begin(effect.run)
        self.loop.call_soon_threadsafe(self._create_task, effect, context=contextvars.Context())

    def _create_task(self, effect: effects.Spawn) -> None:
        assert self.loop is not None
        task = self.loop.create_task(self._work(effect), name=f"dbos {effect.run.workflow_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, effect: effects.Spawn) -> None:
        try:
            outcome = await self._execute(effects.Execute(effect.run, effect.body))
        except BaseException as error:
            outcome = Raised(error)
        report(effect.run, outcome)

    # -- the database ----------------------------------------------------------------------------

    async def _write(self, effect: effects.Write) -> WriteResult:
        return await self._committer.write_async(effect.entry, effect.run, effect.starts)

    async def _write_alone(self, effect: effects.WriteAlone) -> WriteResult:
        return await self._gateway.attempt_async(lambda: commits.write_alone(self._gateway, effect.entry), effect.run)

    async def _probe(self, effect: effects.Probe) -> WriteResult:
        return await self._gateway.attempt_async(lambda: commits.probe(self._gateway, effect.entry), effect.run)

    async def _read(self, effect: effects.Read[T]) -> T:
        return await self._gateway.read_async(effect.verb, effect.run)

    async def _change(self, effect: effects.Change[T]) -> T:
        return await self._gateway.change_async(effect.verb)

    async def _announce(self, effect: effects.Announce) -> None:
        self._hints.announce(effect.queue, effect.name)

    # -- waiting ---------------------------------------------------------------------------------

    async def _pause(self, effect: effects.Pause) -> None:
        if effect.seconds > 0:
            async with _Waiting(effect.run) as waiting:
                await waiting.wait(effect.seconds)

    async def _await_completion(self, effect: effects.AwaitCompletion) -> RunFinish | None:
        async with _Waiting(effect.run) as waiting:
            is_here = self._runs.watch(effect.workflow_id, waiting.take_end)
            seconds = effect.local_seconds if is_here else effect.remote_seconds
            try:
                if seconds > 0:
                    with self._lent(effect.run):
                        await waiting.wait(seconds)
            finally:
                self._runs.unwatch(effect.workflow_id, waiting.take_end)
            return waiting.finish

    @contextlib.contextmanager
    def _lent(self, run: Run | None) -> Iterator[None]:
        if run is None:
            yield
            return
        with self._lending:
            self.lent += 1
        if self.freed is not None:
            self.freed()
        try:
            yield
        finally:
            with self._lending:
                self.lent -= 1

    async def _await_opened(self, effect: effects.AwaitOpened) -> None:
        run, ended = effect.run, dict[asyncio.Task[Any], None]()
        with _interrupted(run, lambda: _cancel_opened(run)):
            while opened := tuple(run.opened):
                if effect.is_abandoned or run.stop is not None:
                    _cancel_opened(run)
                try:
                    await asyncio.wait(opened)
                except asyncio.CancelledError:
                    run.end_with(OwnershipLost(run.workflow_id))
                    _cancel_opened(run)
                    await asyncio.wait(opened)
                    raise
                ended.update(dict.fromkeys(opened))
        errors = [error for task in ended if not task.cancelled() and (error := task.exception())]
        for error in errors if not effect.is_abandoned and run.stop is None else ():
            log_unheard(run, error)


class _Interrupts:
    """How often a run was interrupted while something was done for it."""

    count = 0
    has_ended = False


@contextlib.contextmanager
def _interrupted(run: Run, interrupt: Callable[[], object]) -> Iterator[_Interrupts]:
    """Have ``interrupt`` called in this loop as soon as the run is ended, from any thread, or meets its deadline."""
    loop, found = asyncio.get_running_loop(), _Interrupts()

    def note() -> None:
        # Later, it would hit whatever the task that called the workflow does by then.
        if not found.has_ended:
            found.count += 1
            interrupt()

    def from_any_thread() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(note)

    run.interrupts.add(from_any_thread)
    timer = None
    if run.expires is not None:
        timer = loop.call_later(run.until_deadline(math.inf), run.expire_if_due)
    try:
        yield found
    finally:
        found.has_ended = True
        run.interrupts.discard(from_any_thread)
        if timer is not None:
            timer.cancel()


def _cancel_opened(run: Run) -> None:
    for task in tuple(run.opened):
        task.cancel()


class _Waiting:
    """An event that threads may set, and that is also set when the run is ended."""

    def __init__(self, run: Run | None) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self.set = self._set_threadsafe
        self.finish: RunFinish | None = None

    async def __aenter__(self) -> Self:
        if self._run is not None:
            self._run.interrupts.add(self.set)
            if self._run.stop is not None:
                self._event.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._run is not None:
            self._run.interrupts.discard(self.set)

    def take_end(self, run: Run) -> None:
        """Set the event, from any thread, at the end of a run that was waited for."""
        self.finish = run.finish
        self.set()

    async def wait(self, seconds: float) -> None:
        """Wait until the event is set, at most some seconds, and not beyond the run's deadline."""
        limit = seconds if self._run is None else self._run.until_deadline(seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), limit)
        if self._run is not None:
            self._run.expire_if_due()

    def _set_threadsafe(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)


def _attributed(outcome: Outcome) -> Outcome:
    """The outcome of a workflow's body, which may await a task that it has cancelled itself."""
    if not isinstance(outcome, Raised) or not isinstance(outcome.error, asyncio.CancelledError):
        return outcome
    task = asyncio.current_task()
    assert task is not None
    if task.cancelling():
        return outcome
    return Raised(OwnCancellation(*outcome.error.args).with_traceback(outcome.error.__traceback__))


async def _in_thread(call: Callable[[], Any]) -> Outcome:
    """Call a synchronous step without blocking the loop, in a copy of the context."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(None, context.run, outcome_of, call)
