"""Writing an entry, and finding out why it was refused when it was."""

from __future__ import annotations

from functools import partial
from typing import Final

from sqlalchemy.engine import Connection

from dbos_orm._context import RecordedStep, Run, StepKey
from dbos_orm._dialects import Dialect
from dbos_orm._flows.effects import Flow, Pause, Read, Write, WriteAlone, WriteResult
from dbos_orm._flows.environment import Environment
from dbos_orm._states import WorkflowState
from dbos_orm._store.entries import AttemptEntry, RunFinish, StepEntry
from dbos_orm._store.history import RecordedRun, find_run, find_step
from dbos_orm.errors import NonDeterministicError, OwnershipLost, WorkflowCancelled

_STALL_SECONDS: Final = 0.02
"""The first pause of a write whose row somebody holds; each further one doubles, up to a second."""


def record_step(env: Environment, run: Run, entry: StepEntry, starts: Run | None = None) -> Flow[RecordedStep | None]:
    """Write a step; None, or what is recorded there already by an earlier owner of the same run.

    ``starts``: the run that the entry begins with the step, and that this process is going to execute.

    Raises:
        WorkflowCancelled, OwnershipLost: the run has ended; nothing was written.
        NonDeterministicError: this run has recorded another step under the same number.
    """
    result = yield from Write(entry, run, starts)
    if result is WriteResult.WRITTEN:
        return None
    pause = _STALL_SECONDS
    while True:
        found = yield from find_recorded(env, run, entry)
        if found is not None:
            return adopt(run, entry, found)
        result = yield from WriteAlone(entry, run)
        if result is WriteResult.WRITTEN:
            return None
        yield from Pause(pause, run)
        run.require_live(entry.name)
        pause = min(2 * pause, 1.0)


def find_recorded(env: Environment, run: Run, entry: StepEntry) -> Flow[RecordedStep | None]:
    """What is recorded where ``entry`` belongs.

    Raises:
        WorkflowCancelled, OwnershipLost: the run has ended.
    """
    verb = partial(_find, env.dialect, run.workflow_id, StepKey(entry.scope, entry.step_id))
    found, step = yield from Read(verb, run)
    require_ownership(run, found)
    return step


def adopt(run: Run, entry: StepEntry, step: RecordedStep) -> RecordedStep | None:
    """Decide about a row that is where ``entry`` belongs: None if it is this very write, else the row to replay.

    Raises:
        NonDeterministicError: this run drew one number twice, or another call is recorded under it.
    """
    if step.write_id == entry.write_id:
        return None
    key = StepKey(entry.scope, entry.step_id)
    if step.owner_token == run.owner_token:
        raise NonDeterministicError(run.workflow_id, key.path, step.name, entry.name)
    run.require_same(key, step, entry.name, entry.digest)
    return step


def record_attempt(run: Run, entry: AttemptEntry) -> Flow[None]:
    """Write a failed attempt. A row that is there already is this write, or as good as it."""
    result = yield from Write(entry, run)
    pause = _STALL_SECONDS
    while result is not WriteResult.WRITTEN:
        found = yield from Read(partial(find_run, workflow_id=run.workflow_id), run)
        require_ownership(run, found)
        if result is WriteResult.REFUSED and pause > _STALL_SECONDS:
            # Refused although it waited for the lock and the run is ours: the attempt's row exists.
            return
        result = yield from WriteAlone(entry, run)
        if result is not WriteResult.WRITTEN:
            yield from Pause(pause, run)
            run.require_live(entry.name)
            pause = min(2 * pause, 1.0)


def record_finish(run: Run, entry: RunFinish) -> Flow[None]:
    """Write a workflow's outcome.

    Raises:
        WorkflowCancelled, OwnershipLost: the run has ended otherwise; what is recorded decides.
    """
    result = yield from Write(entry, run)
    pause = _STALL_SECONDS
    while result is not WriteResult.WRITTEN:
        found = yield from Read(partial(find_run, workflow_id=run.workflow_id), run)
        if found is not None and found.owner_token == run.owner_token and found.status == entry.status:
            return
        require_ownership(run, found)
        result = yield from WriteAlone(entry, run)
        if result is not WriteResult.WRITTEN:
            yield from Pause(pause, run)
            run.require_live("the end of the workflow")
            pause = min(2 * pause, 1.0)


def require_ownership(run: Run, found: RecordedRun | None) -> None:
    """End the run unless its row still says that it is ours and PENDING."""
    if found is not None and found.owner_token == run.owner_token:
        if found.status == WorkflowState.PENDING:
            return
        if found.status == WorkflowState.CANCELLED:
            run.end_with(WorkflowCancelled(run.workflow_id))
    run.end_with(OwnershipLost(run.workflow_id))
    assert run.stop is not None
    raise run.stop


def _find(
    dialect: Dialect, workflow_id: str, key: StepKey, connection: Connection
) -> tuple[RecordedRun | None, RecordedStep | None]:
    # In this order: a step that is missing although the run was ours a moment before was not written.
    return find_run(connection, workflow_id), find_step(connection, dialect, workflow_id, key)
