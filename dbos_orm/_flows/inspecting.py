"""Looking at workflows from outside, and steering them."""

from __future__ import annotations

from functools import partial

from dbos_orm._context import StepKey
from dbos_orm._flows.effects import Announce, Change, Flow, Read
from dbos_orm._flows.environment import Environment
from dbos_orm._outcomes import Raised, Returned
from dbos_orm._states import WorkflowState
from dbos_orm._store import ownership, starting
from dbos_orm._store.history import find_run
from dbos_orm._store.snapshots import StepInfo, WorkflowInfo, describe, steps_of
from dbos_orm.errors import NotCommittedError, NotDelayedError, WorkflowNotFoundError


def status(env: Environment, workflow_id: str) -> Flow[WorkflowState]:
    """The state of a workflow.

    Raises:
        WorkflowNotFoundError: there is no such workflow.
    """
    found = yield from Read(partial(find_run, workflow_id=workflow_id))
    if found is None:
        raise WorkflowNotFoundError(workflow_id)
    return found.status


def require_stored(env: Environment, workflow_id: str, operation: str) -> Flow[None]:
    """Return if others can see the workflow.

    Raises:
        NotCommittedError: the transaction that holds it has not been committed, or was rolled back.
    """
    found = yield from Read(partial(find_run, workflow_id=workflow_id))
    if found is None:
        raise NotCommittedError(operation, workflow_id)


def info(env: Environment, workflow_id: str) -> Flow[WorkflowInfo]:
    """A snapshot of a workflow; raises as ``status``."""
    found = yield from Read(partial(describe, workflow_id=workflow_id))
    if found is None:
        raise WorkflowNotFoundError(workflow_id)
    return found


def steps(env: Environment, workflow_id: str) -> Flow[list[StepInfo]]:
    """The recorded steps of a workflow; raises as ``status``."""
    yield from status(env, workflow_id)
    rows = yield from Read(partial(steps_of, workflow_id=workflow_id))
    found = []
    for row in rows:
        outcome = env.decode_outcome(row.output, row.error, row.serializer)
        found.append(
            StepInfo(
                path=StepKey(row.scope, row.step_id).path,
                name=row.name,
                kind=row.kind,
                output=outcome.value if isinstance(outcome, Returned) else None,
                error=outcome.error if isinstance(outcome, Raised) else None,
                child_id=row.child_id,
                attempts=row.attempts,
                started_at=row.started_at,
                completed_at=row.completed_at,
                wake_at=row.wake_at,
            )
        )
    return found


def cancel(env: Environment, workflow_id: str, *, children: bool) -> Flow[list[str]]:
    """Cancel a workflow, and its descendants if asked; give the IDs of those that were live. Raises as ``status``."""
    yield from status(env, workflow_id)
    return (
        yield from Change(partial(ownership.cancel, dialect=env.dialect, workflow_id=workflow_id, children=children))
    )


def set_delay(env: Environment, workflow_id: str, *, delay: int) -> Flow[None]:
    """Have a DELAYED workflow wait for so many microseconds from now.

    Raises:
        WorkflowNotFoundError: there is no such workflow.
        NotDelayedError: it is not DELAYED.
    """
    moved = yield from Change(partial(starting.set_delay, dialect=env.dialect, workflow_id=workflow_id, delay=delay))
    if moved is None:
        raise NotDelayedError(workflow_id, (yield from status(env, workflow_id)))
    yield from Announce(*moved)
