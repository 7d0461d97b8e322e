"""The life of a workflow: start, run, finish; and what others get who await it."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Final

from dbos_orm._context import Frame, Run, Scope
from dbos_orm._flows.effects import (
    AwaitCompletion,
    AwaitOpened,
    Change,
    Flow,
    Invoke,
    Outcome,
    Pause,
    Read,
    RunBody,
    Write,
    WriteAlone,
    WriteResult,
)
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.recording import record_finish
from dbos_orm._outcomes import OwnCancellation, Raised
from dbos_orm._states import WorkflowState
from dbos_orm._store.entries import RunFinish
from dbos_orm._store.history import RecordedRun, find_deadline, find_run, load_history
from dbos_orm._store.ownership import cancel, hand_over, let_go
from dbos_orm._store.starting import Start, find_in_place, require_expected
from dbos_orm.errors import (
    DatabaseUnavailableError,
    MaxRecoveryAttemptsExceededError,
    OwnershipLost,
    WorkflowCancelled,
    WorkflowCancelledError,
    WorkflowNotFoundError,
    WorkflowTimeoutError,
)

_STALL_SECONDS: Final = 0.02
_LONGEST_STALL_SECONDS: Final = 60.0
_FIRST_POLL_SECONDS: Final = 0.002
_LONGEST_POLL_SECONDS: Final = 0.5
_LOCAL_POLL_SECONDS: Final = 1.0


def start(env: Environment, start: Start, run: Run | None) -> Flow[RecordedRun | None]:
    """Store a new workflow; None if it is new, else the row in its place. ``run``: what executes it here.

    Raises:
        ConflictingWorkflowError: the ID belongs to another workflow function, application or queue.
        WorkflowExistsError, DeduplicationError: the ID, or the deduplication ID, is known, and that is an error.
    """
    entry = start.entry
    result = yield from Write(entry, starts=run)
    pause, began = _STALL_SECONDS, env.clock.monotonic()
    while result is not WriteResult.WRITTEN:
        found = yield from Read(partial(find_in_place, entry=entry))
        if found is not None:
            if found.generation == entry.generation:
                return None
            require_expected(found, start)
            return found
        # Somebody's transaction holds the ID, or all of SQLite, and has not ended; or what was in the way has.
        result = yield from WriteAlone(entry)
        if result is not WriteResult.WRITTEN:
            waited = env.clock.monotonic() - began
            if waited > _LONGEST_STALL_SECONDS:
                raise DatabaseUnavailableError(f"the row of workflow {entry.workflow_id!r}", waited, None)
            yield from Pause(pause, None)
            pause = min(2 * pause, 1.0)
    return None


def execute(env: Environment, run: Run, scope: Scope, body: RunBody) -> Flow[Outcome]:
    """Run a workflow that this process owns to its end, and record that.

    Gives what the function returned or raised, or ``Raised`` of what ended the run otherwise:
    ``WorkflowCancelled`` (recorded), or ``OwnershipLost`` (nothing was recorded, somebody else continues it).
    An exit that is no outcome of the workflow (KeyboardInterrupt, a server that cancels its tasks) hands
    the run over.
    """
    if run.reads_deadline:
        run.limit(*(yield from Read(partial(find_deadline, dialect=env.dialect, workflow_id=run.workflow_id), run)))
    run.expire_if_due()
    if run.stop is not None:
        return (yield from _end_stopped(env, run, run.stop))
    if run.is_recovered:
        history = yield from Read(partial(load_history, dialect=env.dialect, workflow_id=run.workflow_id), run)
        run.history, run.attempts = history
    outcome = yield from Invoke(body.workflow.function, body.arguments, body.keywords, Frame(run, scope))
    # Nothing of a run goes on when its outcome is recorded; but who interrupts a process does not want to wait.
    if run.opened and not (isinstance(outcome, Raised) and isinstance(outcome.error, KeyboardInterrupt)):
        yield from AwaitOpened(run, is_abandoned=isinstance(outcome, Raised))
    return (yield from _finish(env, run, outcome))


def _finish(env: Environment, run: Run, outcome: Outcome) -> Flow[Outcome]:
    if run.stop is not None:
        return (yield from _end_stopped(env, run, run.stop))
    if isinstance(outcome, Raised) and not isinstance(outcome.error, Exception):
        run.end_with(OwnershipLost(run.workflow_id))
        # Whoever interrupts a process means the process. Any other exit is the workflow's own doing, and must not
        # go on for ever.
        from_outside = isinstance(outcome.error, (KeyboardInterrupt, asyncio.CancelledError))
        counts = not from_outside or isinstance(outcome.error, OwnCancellation)
        owned = [(run.workflow_id, run.owner_token)]
        yield from Change(partial(hand_over, dialect=env.dialect, owned=owned, counts=counts))
        return outcome
    outcome, output, error = env.encode_outcome(outcome)
    status = WorkflowState.SUCCESS if error is None else WorkflowState.ERROR
    entry = RunFinish(run.workflow_id, run.owner_token, status.value, output, error, env.codec.name)
    try:
        yield from record_finish(run, entry)
        run.finish = entry
    except (WorkflowCancelled, OwnershipLost) as stop:
        # It was ended otherwise while the function returned: the row decides.
        return (yield from _end_stopped(env, run, stop))
    return outcome


def _end_stopped(env: Environment, run: Run, stop: BaseException) -> Flow[Outcome]:
    if isinstance(stop, WorkflowCancelled):
        yield from _end_cancelled(env, run)
    return Raised(stop)


def _end_cancelled(env: Environment, run: Run) -> Flow[None]:
    if run.is_timed_out:
        error = env.codec.encode_error(WorkflowTimeoutError(run.workflow_id, run.deadline))
        # Children that inherited the deadline keep it by themselves; the detached ones go on.
        yield from Change(
            partial(cancel, dialect=env.dialect, workflow_id=run.workflow_id, children=False, error=error)
        )
    yield from Change(partial(let_go, workflow_id=run.workflow_id, owner_token=run.owner_token))


def await_outcome(
    env: Environment, workflow_id: str, *, seconds: float | None = None, run: Run | None = None
) -> Flow[Outcome]:
    """Give the outcome of a workflow as those get it who await it, waiting ``seconds`` at most.

    Raises:
        WorkflowNotFoundError: there is no such workflow.
        TimeoutError: patience ran out; the workflow goes on.
    """
    ends = None if seconds is None else env.clock.monotonic() + seconds
    poll = _FIRST_POLL_SECONDS
    # One that runs here need not be looked up.
    finish = yield from AwaitCompletion(workflow_id, _LOCAL_POLL_SECONDS if seconds is None else seconds, 0.0, run)
    while finish is None:
        found = yield from Read(partial(find_run, workflow_id=workflow_id), run)
        if found is None:
            raise WorkflowNotFoundError(workflow_id)
        if found.is_terminal:
            return outcome_of(env, found)
        left = None if ends is None else ends - env.clock.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError(f"workflow {workflow_id!r} is {found.status} after {seconds:g} s; it goes on")
        patience = math.inf if left is None else left
        finish = yield from AwaitCompletion(workflow_id, min(_LOCAL_POLL_SECONDS, patience), min(poll, patience), run)
        poll = min(1.5 * poll, _LONGEST_POLL_SECONDS)
        if run is not None:
            run.require_live("result()")
    return env.decode_outcome(finish.output, finish.error, finish.serializer)


def outcome_of(env: Environment, found: RecordedRun) -> Outcome:
    """What those get who await a workflow that has ended."""
    if found.status == WorkflowState.CANCELLED and found.error is None:
        return Raised(WorkflowCancelledError(found.workflow_id))
    if found.status == WorkflowState.MAX_RECOVERY_ATTEMPTS_EXCEEDED and found.error is None:
        attempts = found.recovery_attempts
        return Raised(MaxRecoveryAttemptsExceededError(found.workflow_id, attempts, "given up"))
    return env.decode_outcome(found.output, found.error, found.serializer)
