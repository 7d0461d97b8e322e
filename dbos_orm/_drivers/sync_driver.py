"""Performs effects in the calling thread."""

from __future__ import annotations

import math
import threading
from asyncio import _get_running_loop
from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

from dbos_orm._clock import steady_seconds
from dbos_orm._context import OpenTransaction, Run, Scope, current_frame, current_transaction, here
from dbos_orm._drivers import committer as commits
from dbos_orm._drivers.active_runs import ActiveRuns
from dbos_orm._drivers.committer import Committer, EntryWriter
from dbos_orm._drivers.databases import Databases
from dbos_orm._drivers.gateway import Gateway
from dbos_orm._drivers.hints import Hints
from dbos_orm._drivers.report import log_unheard, report
from dbos_orm._drivers.sessions import lending
from dbos_orm._drivers.submitted_steps import SubmittedStep
from dbos_orm._drivers.sync_sessions import Sessions
from dbos_orm._drivers.tickets import Ticket
from dbos_orm._drivers.time_limits import call_within
from dbos_orm._drivers.worker_threads import WorkerThreads
from dbos_orm._flows import effects
from dbos_orm._flows.effects import Effect, Flow, Outcome, WriteResult
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.running import execute
from dbos_orm._outcomes import Raised, Returned
from dbos_orm._store.entries import RunFinish
from dbos_orm.errors import ConfigurationError, OwnershipLost

T = TypeVar("T")


class SyncDriver:
    """Drives flows for sync code. One object serves all threads of an application."""

    def __init__(
        self,
        environment: Environment,
        gateway: Gateway,
        committer: EntryWriter,
        runs: ActiveRuns,
        threads: WorkerThreads,
        databases: Databases,
        hints: Hints,
    ) -> None:
        self.sessions = Sessions(databases)
        self._environment = environment
        self._gateway = gateway
        self._committer = committer
        self._runs = runs
        self._hints = hints
        self._threads = threads
        self._performers: dict[type[Effect[Any]], Callable[[Any], Any]] = {
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

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end and give its value; what it raises is raised here.

        Raises:
            ConfigurationError: an event loop runs on this thread, which would stop; nothing was done.
        """
        self.require_blockable()
        transaction: OpenTransaction | None = None
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, (effects.Commit, effects.Rollback)):
                    # They close it, also if they are interrupted: twice would give back another's turn.
                    transaction = None
                result = self.perform(effect)
                if isinstance(effect, effects.OpenSession) and isinstance(result, Returned):
                    transaction = result.value
                effect = flow.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            flow.close()
            if transaction is not None:
                self.sessions.close(transaction)

    def require_blockable(self) -> None:
        """Refuse to block a thread whose event loop would stop; raises as ``run``."""
        if _get_running_loop() is None:
            return
        if not self._environment.config.may_block_loop or self._gateway.has_service_loop:
            raise _blocks_loop()

    def perform(self, effect: Effect[T]) -> T:
        """Do what an effect asks for, and give its result."""
        result: T = self._performers[type(effect)](effect)
        return result

    # -- the user's function ---------------------------------------------------------------------

    def _invoke(self, effect: effects.Invoke) -> Outcome:
        frame = current_frame.set(effect.frame)
        transaction = current_transaction.set(effect.transaction)
        try:
            if effect.limit is not None:
                call = partial(effect.function, *effect.arguments, **effect.keywords)
                run = None if effect.frame is None else effect.frame.run
                return call_within(effect.limit, self._environment.surroundings.around(run, call))
            if effect.transaction is None:
                return Returned(effect.function(*effect.arguments, **effect.keywords))
            with lending(effect.transaction):
                return Returned(effect.function(*effect.arguments, **effect.keywords))
        except BaseException as error:
            return Raised(error)
        finally:
            current_transaction.reset(transaction)
            current_frame.reset(frame)

    def _execute(self, effect: effects.Execute) -> Outcome:
        run = effect.run
        self._runs.begin(run)
        try:
            return self.run(execute(self._environment, run, Scope("", here(is_async=False)), effect.body))
        except BaseException:
            run.end_with(OwnershipLost(run.workflow_id))
            raise
        finally:
            self._runs.end(run)

    def _spawn(self, effect: effects.Spawn) -> None:
        self._runs.begin(effect.run)
        self._threads.submit(lambda: self._work(effect))

    finishes_later = True
    """Whether a worker thread goes on with other work while the end of its workflow is written."""

    def _work(self, effect: effects.Spawn) -> None:
        if self.finishes_later and isinstance(self._committer, Committer):
            self._work_until_finish(effect, self._committer)
        else:
            self._work_to_end(effect)

    def _work_to_end(self, effect: effects.Spawn) -> None:
        try:
            execute = partial(self._execute, effects.Execute(effect.run, effect.body))
            outcome = self._environment.surroundings.call(effect.run, execute)
        except BaseException as error:
            outcome = Raised(error)
            self._runs.end(effect.run)  # where it could not even begin
        report(effect.run, outcome)

    def _work_until_finish(self, effect: effects.Spawn, committer: Committer) -> None:
        """Execute a run; its outcome is on its way to the database when this returns, and nobody waits for that here.

        The run counts as running until it is written.
        """
        run = effect.run
        flow = execute(self._environment, run, Scope("", here(is_async=False)), effect.body)
        try:
            ended = self._environment.surroundings.call(run, lambda: self._until_finish(flow))
        except BaseException as error:
            flow.close()
            run.end_with(OwnershipLost(run.workflow_id))
            ended = Raised(error)
        if isinstance(ended, effects.Write):
            committer.write_later(ended.entry, run, lambda ticket: self._take_finish(run, flow, ticket))
        else:
            self._end(run, ended)

    def _until_finish(self, flow: Flow[Outcome]) -> Outcome | effects.Write:
        """Drive a flow until it is about to write the outcome of its run, or has ended without that."""
        try:
            effect = next(flow)
            while not (isinstance(effect, effects.Write) and isinstance(effect.entry, RunFinish)):
                effect = flow.send(self.perform(effect))
            return effect
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome

    def _take_finish(self, run: Run, flow: Flow[Outcome], ticket: Ticket) -> None:
        if ticket.error is None and ticket.result is WriteResult.WRITTEN:
            self._drive_to_end(run, flow, ticket)
        else:
            # To find out why may take a while, and this is the thread of somebody else.
            self._threads.submit(lambda: self._drive_to_end(run, flow, ticket), is_part=True)

    def _drive_to_end(self, run: Run, flow: Flow[Outcome], ticket: Ticket) -> None:
        outcome: Outcome
        try:
            effect = flow.send(ticket.outcome())
            while True:
                effect = flow.send(self.perform(effect))
        except StopIteration as stop:
            outcome = stop.value
        except BaseException as error:
            flow.close()
            run.end_with(OwnershipLost(run.workflow_id))
            outcome = Raised(error)
        self._end(run, outcome)

    def _end(self, run: Run, outcome: Outcome) -> None:
        self._runs.end(run)
        report(run, outcome)

    # -- the database ----------------------------------------------------------------------------

    def _write(self, effect: effects.Write) -> WriteResult:
        return self._committer.write(effect.entry, effect.run, effect.starts)

    def _write_alone(self, effect: effects.WriteAlone) -> WriteResult:
        return self._gateway.attempt(lambda: commits.write_alone(self._gateway, effect.entry), effect.run)

    def _probe(self, effect: effects.Probe) -> WriteResult:
        return self._gateway.attempt(lambda: commits.probe(self._gateway, effect.entry), effect.run)

    def _read(self, effect: effects.Read[T]) -> T:
        return self._gateway.read(effect.verb, effect.run)

    def _change(self, effect: effects.Change[T]) -> T:
        return self._gateway.change(effect.verb)

    def _announce(self, effect: effects.Announce) -> None:
        self._hints.announce(effect.queue, effect.name)

    # -- waiting ---------------------------------------------------------------------------------

    def _pause(self, effect: effects.Pause) -> None:
        if effect.seconds <= 0:
            return
        with _Waiting(effect.run) as waiting, self._threads.lent():
            waiting.wait(effect.seconds)

    def _await_completion(self, effect: effects.AwaitCompletion) -> RunFinish | None:
        with _Waiting(effect.run) as waiting:
            is_here = self._runs.watch(effect.workflow_id, waiting.take_end)
            seconds = effect.local_seconds if is_here else effect.remote_seconds
            try:
                if seconds > 0:
                    with self._threads.lent():
                        waiting.wait(seconds)
            finally:
                self._runs.unwatch(effect.workflow_id, waiting.take_end)
            return waiting.finish

    # -- steps beside the workflow ---------------------------------------------------------------

    def submit(self, run: Run, flow: Flow[Outcome]) -> SubmittedStep:
        """Run a step of a run beside it, on a worker thread if one is free."""
        perform = self._environment.surroundings.around(run, lambda: self.run(flow))
        submitted = SubmittedStep(run, perform)
        self._threads.submit(submitted.work, is_part=True)
        return submitted

    def await_submitted(self, submitted: SubmittedStep, seconds: float | None) -> Outcome:
        """The outcome of a submitted step; without a limit, one that nobody has begun is run here.

        Raises:
            TimeoutError: there is none after so many seconds.
            WorkflowCancelled, OwnershipLost: the run has ended.
        """
        if seconds is None:
            self._work_here(submitted)
        ends = math.inf if seconds is None else steady_seconds() + seconds
        with _Waiting(submitted.run) as waiting:
            submitted.watch(waiting.set)
            try:
                while not submitted.is_done:
                    left = ends - steady_seconds()
                    if left <= 0:
                        raise TimeoutError(f"the step has no outcome after {seconds:g} s; it goes on")
                    with self._threads.lent():
                        waiting.wait(min(left, threading.TIMEOUT_MAX))
                    if submitted.run.stop is not None and not submitted.is_done:
                        raise submitted.run.stop
            finally:
                submitted.unwatch(waiting.set)
        assert submitted.outcome is not None
        return submitted.outcome

    def _work_here(self, submitted: SubmittedStep) -> None:
        self._threads.withdraw_part(submitted.work)
        submitted.work()

    def _await_opened(self, effect: effects.AwaitOpened) -> None:
        run = effect.run
        while opened := tuple(run.opened):
            for submitted in opened:
                run.expire_if_due()
                is_dropped = effect.is_abandoned or run.stop is not None
                if is_dropped:
                    submitted.withdraw()
                self._work_here(submitted)
                with self._threads.lent():
                    submitted.wait()
                if isinstance(submitted.outcome, Raised) and not is_dropped and run.stop is None:
                    log_unheard(run, submitted.outcome.error)


def _blocks_loop() -> ConfigurationError:
    return ConfigurationError(
        "thread",
        threading.current_thread().name,
        "a thread without a running event loop, which this blocking call would stop",
        "use AsyncDBOS, or await asyncio.to_thread(...); in a notebook, Config(may_block_loop=True)",
    )


class _Waiting:
    """An event that is also set when the run is ended."""

    def __init__(self, run: Run | None) -> None:
        self._run = run
        self._event = threading.Event()
        self.set = self._event.set
        self.finish: RunFinish | None = None

    def __enter__(self) -> Self:
        if self._run is not None:
            self._run.interrupts.add(self.set)
            if self._run.stop is not None:
                self.set()
        return self

    def take_end(self, run: Run) -> None:
        """Set the event at the end of a run that was waited for."""
        self.finish = run.finish
        self.set()

    def wait(self, seconds: float) -> None:
        """Wait until the event is set, at most some seconds, and not beyond the run's deadline."""
        self._event.wait(seconds if self._run is None else self._run.until_deadline(seconds))
        if self._run is not None:
            self._run.expire_if_due()

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._run.interrupts.discard(self.set)
