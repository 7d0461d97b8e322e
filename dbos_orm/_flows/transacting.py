"""The life of a transactional step: the user's rows and the checkpoint in one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dbos_orm._context import Frame, OpenTransaction, RecordedStep, RunningStep, StepKey
from dbos_orm._dialects import Fault
from dbos_orm._flows.checkpoint_places import OwnDatabase, Place, Settled
from dbos_orm._flows.effects import (
    Commit,
    Flow,
    Flush,
    Invoke,
    OpenSession,
    Outcome,
    Pause,
    Reach,
    RecordIn,
    Rollback,
    Source,
    Unreachable,
    WriteResult,
)
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.recording import record_step
from dbos_orm._flows.second_database import SecondDatabase, reach
from dbos_orm._flows.transaction_faults import Pauses, fault_of
from dbos_orm._outcomes import Raised, Returned
from dbos_orm._settings import TransactionSettings
from dbos_orm._store.entries import StepEntry

_MOST_DISCONNECTIONS: Final = 100
"""Lost connections in one step, after which it is the step that loses them."""


@dataclass(frozen=True, slots=True)
class TransactionCall:
    """One call of a transaction. ``session_position``: where among the arguments the session goes.

    ``source``: where its sessions come from, or None where that is to be found out by the settings.
    """

    name: str
    function: Callable[..., Any]
    session_position: int
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    settings: TransactionSettings
    source: Source | None
    digest: str | None = None

    def with_session(self, session: Any) -> list[Any]:
        """The arguments with the session in its place."""
        arguments = list(self.arguments)
        arguments.insert(self.session_position, session)
        return arguments


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one transaction came to. ``fault`` is set where another transaction may succeed.

    ``was_open``: false if the function was not called.
    """

    outcome: Outcome
    fault: Fault | None = None
    settled: Settled | None = None
    was_open: bool = True


class _Tries:
    """Counts the transactions of a step that came to nothing."""

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._disconnections = 0
        self.conflicts = 0
        self.pauses = Pauses()

    def go_on(self, attempt: _Attempt, *, counts: bool) -> bool:
        """Whether another transaction is to be tried after this one; ``counts``: if it was lost, one time of many."""
        if attempt.fault is not Fault.DISCONNECTED:
            self.conflicts += 1
        elif counts:
            self._disconnections += 1
        if attempt.fault is None or attempt.fault is Fault.REJECTED:
            return False
        # A value whose rows were rolled back is no outcome, however often that happens.
        is_exhausted = self.conflicts >= self._max_attempts or self._disconnections >= _MOST_DISCONNECTIONS
        return not (is_exhausted and isinstance(attempt.outcome, Raised))


def transaction(env: Environment, frame: Frame, key: StepKey, call: TransactionCall) -> Flow[Outcome]:
    """Give the recorded outcome of the transactional step, or run it: session, function, checkpoint, one commit.

    A conflict between transactions and a lost connection are no outcome: it is tried again, from the
    beginning, with a new session. An error of the function rolls back, and is then recorded. What was committed
    in a second database is then recorded here too.
    """
    run = frame.run
    recorded = run.recorded(key, call.name, call.digest)
    if recorded is not None:
        return env.replay(run, recorded)
    run.require_live(call.name)
    source = call.source
    if source is None:
        assert call.settings.sessionmaker is not None
        source = yield from reach(run, call.name, call.settings.sessionmaker)
    place = OwnDatabase(env, run, source) if source.is_own else SecondDatabase(env, run, source)
    settled = yield from place.look_back(key, call.name, call.digest)
    if settled is None:
        settled = yield from _until_settled(env, frame, key, call, place)
    if settled.entry is None:
        return settled.outcome
    found = yield from record_step(env, run, settled.entry)
    return settled.outcome if found is None else env.replay(run, found)


def plain_transaction(frame: Frame | None, call: TransactionCall) -> Flow[Outcome]:
    """Run a transaction outside a workflow: session, function, commit; conflicts are tried again, nothing is recorded.

    In a plain step, whose ``frame`` this is then, it is a part of that step.
    """
    source = call.source
    if source is None:
        assert call.settings.sessionmaker is not None
        reached = yield from Reach(call.settings.sessionmaker)
        if isinstance(reached, Unreachable):
            return Raised(reached.error)
        source = reached
    settings, conflicts, pauses = call.settings, 0, Pauses()
    while True:
        outcome = yield from OpenSession(source, call.name, settings.isolation_level, settings.statement_timeout)
        if not isinstance(outcome, Raised):
            transaction: OpenTransaction = outcome.value
            outcome = yield from _call_and_flush(call, frame, transaction)
            if not isinstance(outcome, Raised):
                committed = yield from Commit(transaction)
                outcome = committed if isinstance(committed, Raised) else outcome
        conflicts += 1
        is_conflict = isinstance(outcome, Raised) and fault_of(source.dialect, outcome.error) is Fault.CONFLICT
        if not is_conflict or conflicts >= call.settings.max_attempts:
            return outcome
        yield from Pause(pauses.next(), None)


def _call_and_flush(call: TransactionCall, frame: Frame | None, transaction: OpenTransaction) -> Flow[Outcome]:
    arguments = call.with_session(transaction.session)
    outcome = yield from Invoke(call.function, arguments, call.keywords, frame, transaction)
    if not isinstance(outcome, Raised):
        # Before its value is encoded: keys that the database generates are then in it.
        flushed = yield from Flush(transaction)
        outcome = flushed if isinstance(flushed, Raised) else outcome
    if isinstance(outcome, Raised):
        yield from Rollback(transaction)
        if not isinstance(outcome.error, Exception):
            raise outcome.error
    return outcome


def _until_settled(env: Environment, frame: Frame, key: StepKey, call: TransactionCall, place: Place) -> Flow[Settled]:
    tries = _Tries(call.settings.max_attempts)
    while True:
        frame.run.require_live(call.name)
        started_at = env.instant()
        attempt = yield from _attempt(env, frame, key, call, place, tries.conflicts + 1, started_at)
        if attempt.settled is not None:
            return attempt.settled
        if attempt.fault is Fault.DISCONNECTED:
            yield from place.await_database(attempt.outcome, tries.pauses)
        if not tries.go_on(attempt, counts=attempt.was_open or place.source.is_own):
            break
        yield from Pause(tries.pauses.next(), frame.run)
    entry, outcome = _entry(env, frame, key, call, attempt.outcome, max(tries.conflicts, 1), started_at)
    return (yield from place.settle_failure(entry, outcome))


def _attempt(
    env: Environment, frame: Frame, key: StepKey, call: TransactionCall, place: Place, number: int, started_at: str
) -> Flow[_Attempt]:
    settings, dialect = call.settings, place.source.dialect
    opened = yield from OpenSession(place.source, call.name, settings.isolation_level, settings.statement_timeout)
    if isinstance(opened, Raised):
        place.require_openable(opened.error)
        return _Attempt(opened, dialect.fault(opened.error), was_open=False)
    open_transaction: OpenTransaction = opened.value
    info = RunningStep(key, call.name, number, call.settings.max_attempts, transactional=True)
    outcome = yield from _call_and_flush(call, Frame(frame.run, frame.scope, info), open_transaction)
    if isinstance(outcome, Raised):
        return _Attempt(outcome, fault_of(dialect, outcome.error))
    entry, outcome = _entry(env, frame, key, call, outcome, number, started_at)
    if isinstance(outcome, Raised):
        yield from Rollback(open_transaction)
        return _Attempt(outcome)
    written = yield from RecordIn(open_transaction, place.checkpoint(entry))
    if written == Returned(WriteResult.WRITTEN):
        place.require_live(call.name)
        committed = yield from Commit(open_transaction)
        if not isinstance(committed, Raised):
            return _Attempt(outcome, settled=place.settled(entry, outcome))
        return (yield from _after_failed_commit(place, entry, outcome, committed))
    yield from Rollback(open_transaction)
    if isinstance(written, Raised):
        return (yield from _after_failed_record(place, entry, outcome, written))
    return (yield from _after_refusal(place, entry, outcome))


def _after_failed_commit(place: Place, entry: StepEntry, outcome: Outcome, failure: Raised) -> Flow[_Attempt]:
    """Find out whether a COMMIT that failed happened: its answer was lost, or a listener raised behind it."""
    fault = place.source.dialect.fault(failure.error)
    found = None
    if fault is not Fault.CONFLICT:
        found = yield from place.settle(entry)
    return _Attempt(failure, fault) if found is None else _adopted(place, entry, outcome, found)


def _after_failed_record(place: Place, entry: StepEntry, outcome: Outcome, failure: Raised) -> Flow[_Attempt]:
    """The checkpoint's own statement failed: the function left no transaction to write in, or the database did."""
    fault = place.source.dialect.fault(failure.error)
    if fault is Fault.REJECTED and place.source.dialect.is_time_limit(failure.error):
        # The limit is for the function; what its checkpoint had to wait for is another transaction.
        fault = Fault.CONFLICT
    found = None
    if fault is Fault.REJECTED:
        yield from place.require_writable(entry.name)
    elif fault is Fault.CONFLICT:
        found = yield from place.after_conflict(entry)
    return _Attempt(failure, fault) if found is None else _adopted(place, entry, outcome, found)


def _after_refusal(place: Place, entry: StepEntry, outcome: Outcome) -> Flow[_Attempt]:
    """Refused: the run has ended (this raises), or the step is recorded already, or it was a conflict."""
    found = yield from place.find(entry)
    return _Attempt(outcome, Fault.CONFLICT) if found is None else _adopted(place, entry, outcome, found)


def _adopted(place: Place, entry: StepEntry, outcome: Outcome, found: RecordedStep) -> _Attempt:
    settled = place.adopted(entry, outcome, found)
    return _Attempt(settled.outcome, settled=settled)


def _entry(
    env: Environment,
    frame: Frame,
    key: StepKey,
    call: TransactionCall,
    outcome: Outcome,
    attempts: int,
    started_at: str,
) -> tuple[StepEntry, Outcome]:
    outcome, output, error = env.encode_outcome(outcome)
    entry = env.step_entry(
        frame.run,
        key,
        call.name,
        "transaction",
        output,
        error,
        attempts=attempts,
        started_at=started_at,
        digest=call.digest,
    )
    return entry, outcome
