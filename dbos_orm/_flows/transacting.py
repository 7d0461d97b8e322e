"""The life of a transactional step: the user's rows and the checkpoint in one commit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from dbos_orm._context import Frame, RecordedStep, Run, RunningStep, StepKey
from dbos_orm._dialects import Fault
from dbos_orm._flows.effects import (
    Commit,
    Flow,
    Flush,
    Invoke,
    OpenSession,
    Outcome,
    Pause,
    Probe,
    Read,
    RecordIn,
    Rollback,
    WriteResult,
)
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.recording import adopt, find_recorded, record_step
from dbos_orm._outcomes import Raised, Returned
from dbos_orm._settings import TransactionSettings
from dbos_orm._store.entries import StepEntry
from dbos_orm._store.history import find_run

_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 2.0
_MOST_DISCONNECTIONS: Final = 100
"""Lost connections in one step, after which it is the step that loses them."""


@dataclass(frozen=True, slots=True)
class TransactionCall:
    """One call of a transaction. ``session_position``: where among the arguments the session goes."""

    name: str
    function: Callable[..., Any]
    session_position: int
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    settings: TransactionSettings
    digest: str | None = None

    def with_session(self, session: Any) -> list[Any]:
        """The arguments with the session in its place."""
        arguments = list(self.arguments)
        arguments.insert(self.session_position, session)
        return arguments


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one transaction came to. ``fault`` is set where another transaction may succeed."""

    outcome: Outcome
    fault: Fault | None = None
    committed: bool = False


def transaction(env: Environment, frame: Frame, key: StepKey, call: TransactionCall) -> Flow[Outcome]:
    """Give the recorded outcome of the transactional step, or run it: session, function, checkpoint, one commit.

    A conflict between transactions and a lost connection are no outcome: it is tried again, from the
    beginning, with a new session. An error of the function rolls back, and is then recorded.
    """
    run = frame.run
    recorded = run.recorded(key, call.name, call.digest)
    if recorded is not None:
        return env.replay(run, recorded)
    conflicts, disconnections, pause = 0, 0, _FIRST_PAUSE_SECONDS
    while True:
        run.require_live(call.name)
        started_at = env.instant()
        attempt = yield from _attempt(env, frame, key, call, conflicts + 1, started_at)
        if attempt.committed:
            return attempt.outcome
        # However long the database is away: until it is back, this read waits.
        if attempt.fault is Fault.DISCONNECTED:
            yield from Read(partial(find_run, workflow_id=run.workflow_id), run)
            disconnections += 1
        else:
            conflicts += 1
        if attempt.fault is None or attempt.fault is Fault.REJECTED:
            break
        # A value whose rows were rolled back is no outcome, however often that happens.
        is_exhausted = conflicts >= call.settings.max_attempts or disconnections >= _MOST_DISCONNECTIONS
        if is_exhausted and isinstance(attempt.outcome, Raised):
            break
        yield from Pause(pause * (0.5 + random.random() / 2), run)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    entry, outcome = _entry(env, run, key, call, attempt.outcome, max(conflicts, 1), started_at)
    found = yield from record_step(env, run, entry)
    return outcome if found is None else env.replay(run, found)


def plain_transaction(env: Environment, frame: Frame | None, call: TransactionCall) -> Flow[Outcome]:
    """Run a transaction outside a workflow: session, function, commit; conflicts are tried again, nothing is recorded.

    In a plain step, whose ``frame`` this is then, it is a part of that step.
    """
    conflicts, pause = 0, _FIRST_PAUSE_SECONDS
    while True:
        outcome = yield from OpenSession(call.settings.isolation_level)
        if not isinstance(outcome, Raised):
            session = outcome.value
            outcome = yield from _call_and_flush(call, frame, session)
            if not isinstance(outcome, Raised):
                committed = yield from Commit(session)
                outcome = committed if isinstance(committed, Raised) else outcome
        conflicts += 1
        is_conflict = isinstance(outcome, Raised) and _fault_of(env, outcome.error) is Fault.CONFLICT
        if not is_conflict or conflicts >= call.settings.max_attempts:
            return outcome
        yield from Pause(pause * (0.5 + random.random() / 2), None)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _call_and_flush(call: TransactionCall, frame: Frame | None, session: Any) -> Flow[Outcome]:
    outcome = yield from Invoke(call.function, call.with_session(session), call.keywords, frame, session)
    if not isinstance(outcome, Raised):
        # Before its value is encoded: keys that the database generates are then in it.
        flushed = yield from Flush(session)
        outcome = flushed if isinstance(flushed, Raised) else outcome
    if isinstance(outcome, Raised):
        yield from Rollback(session)
        if not isinstance(outcome.error, Exception):
            raise outcome.error
    return outcome


def _attempt(
    env: Environment, frame: Frame, key: StepKey, call: TransactionCall, number: int, started_at: str
) -> Flow[_Attempt]:
    run = frame.run
    opened = yield from OpenSession(call.settings.isolation_level)
    if isinstance(opened, Raised):
        return _failed(env, opened)
    session = opened.value
    info = RunningStep(key, call.name, number, call.settings.max_attempts, transactional=True)
    outcome = yield from _call_and_flush(call, Frame(run, frame.scope, info), session)
    if isinstance(outcome, Raised):
        return _Attempt(outcome, fault=_fault_of(env, outcome.error))
    entry, outcome = _entry(env, run, key, call, outcome, number, started_at)
    if isinstance(outcome, Raised):
        yield from Rollback(session)
        return _Attempt(outcome)
    written = yield from RecordIn(session, entry)
    if written == Returned(WriteResult.WRITTEN):
        committed = yield from Commit(session)
        if not isinstance(committed, Raised):
            return _Attempt(outcome, committed=True)
        return (yield from _after_failed_commit(env, run, entry, outcome, committed))
    yield from Rollback(session)
    if isinstance(written, Raised):
        return _failed(env, written)
    return (yield from _after_refusal(env, run, entry, outcome))


def _after_failed_commit(
    env: Environment, run: Run, entry: StepEntry, outcome: Outcome, failure: Raised
) -> Flow[_Attempt]:
    """Find out whether a COMMIT that failed happened: its answer was lost, or a listener raised behind it.

    Its key is inserted again and taken back: that waits for the old backend if it is still busy with it.
    """
    failed = _failed(env, failure)
    if failed.fault is Fault.CONFLICT:
        return failed
    pause = _FIRST_PAUSE_SECONDS
    while True:
        result = yield from Probe(entry, run)
        if result is WriteResult.WRITTEN:
            return failed
        if result is WriteResult.REFUSED:
            break
        yield from Pause(pause, run)
        run.require_live(entry.name)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    found = yield from find_recorded(env, run, entry)
    return failed if found is None else _Attempt(_of_recorded(env, run, entry, outcome, found), committed=True)


def _after_refusal(env: Environment, run: Run, entry: StepEntry, outcome: Outcome) -> Flow[_Attempt]:
    """The fence refused: the run has ended (this raises), or the step is recorded already, or it was a conflict."""
    found = yield from find_recorded(env, run, entry)
    if found is None:
        return _Attempt(outcome, fault=Fault.CONFLICT)
    return _Attempt(_of_recorded(env, run, entry, outcome, found), committed=True)


def _of_recorded(env: Environment, run: Run, entry: StepEntry, outcome: Outcome, found: RecordedStep) -> Outcome:
    other = adopt(run, entry, found)
    return outcome if other is None else env.replay(run, other)


def _fault_of(env: Environment, error: BaseException) -> Fault | None:
    """What an error of the user's function says of our database; None if it is the function's own.

    Other systems are away or busy too, in the same words: only SQLAlchemy's errors count. But whatever a
    function makes of a lost connection, its transaction cannot commit any more.
    """
    if isinstance(error, DBAPIError):
        return env.dialect.fault(error)
    is_lost = any(
        isinstance(cause, DBAPIError) and env.dialect.fault(cause) is Fault.DISCONNECTED for cause in _causes(error)
    )
    return Fault.DISCONNECTED if is_lost else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = [error]
    while (cause := seen[-1].__cause__ or seen[-1].__context__) is not None and cause not in seen:
        yield cause
        seen.append(cause)


def _failed(env: Environment, failure: Raised) -> _Attempt:
    return _Attempt(failure, fault=env.dialect.fault(failure.error))


def _entry(
    env: Environment,
    run: Run,
    key: StepKey,
    call: TransactionCall,
    outcome: Outcome,
    attempts: int,
    started_at: str,
) -> tuple[StepEntry, Outcome]:
    outcome, output, error = env.encode_outcome(outcome)
    entry = env.step_entry(
        run,
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
