"""Who owns a workflow: claims, take-overs, hand-overs, cancels.

Everything here that takes ownership away first locks the status rows FOR UPDATE in a statement of its
own, which waits for writes of the owner that are under way; only later statements read what the
owner recorded. So no write of a former owner can appear behind a decision that was made without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, literal, null, or_, select, update
from sqlalchemy.engine import Connection

from dbos_orm._dialects import Dialect
from dbos_orm._registry import Runnable
from dbos_orm._states import LIVE_STATES, WorkflowState
from dbos_orm._store.claim_statement import claimed_columns
from dbos_orm._store.claiming import Claimant, ClaimedRun, claimed_run
from dbos_orm._store.entries import INTERNAL_QUEUE
from dbos_orm._store.runnable import can_be_stamped, is_runnable
from dbos_orm.models import Executor, StepOutput, WorkflowStatus


def claim_abandoned(connection: Connection, dialect: Dialect, claimant: Claimant, *, limit: int) -> list[ClaimedRun]:
    """Take over up to ``limit`` runs whose executor is known to be dead, in a transaction of the caller's.

    Only runs without a queue of the user's; ``requeue_abandoned`` is for the others. Counts a recovery attempt:
    from one again if the dead owner recorded a step.
    """
    picked = _lock_abandoned(connection, claimant, is_queued=False, limit=limit)
    if not picked:
        return []
    statement = (
        update(WorkflowStatus)
        .where(WorkflowStatus.workflow_id.in_(picked))
        .values(
            executor_id=claimant.executor_id,
            owner_token=claimant.owner_token,
            recovery_attempts=_next_attempt(),
            updated_at=dialect.now(),
        )
    )
    return _claimed(connection, dialect, statement)


def find_claimed(connection: Connection, dialect: Dialect, claimant: Claimant) -> list[ClaimedRun]:
    """What the claimant owns by this claim: for when the answer to its commit was lost."""
    rows = connection.execute(
        select(*claimed_columns(dialect))
        .where(
            WorkflowStatus.status == WorkflowState.PENDING,
            WorkflowStatus.executor_id == claimant.executor_id,
            WorkflowStatus.owner_token == claimant.owner_token,
        )
        .order_by(WorkflowStatus.sequence)
    ).all()
    return [claimed_run(row) for row in rows]


def requeue_abandoned(connection: Connection, dialect: Dialect, claimant: Claimant) -> set[tuple[str, str]]:
    """Put runs of dead executors that came from a queue back to their place in it; give each (queue, name)."""
    picked = _lock_abandoned(connection, claimant, is_queued=True, limit=1000)
    if not picked:
        return set()
    rows = connection.execute(
        update(WorkflowStatus)
        .where(WorkflowStatus.workflow_id.in_(picked))
        .values(
            status=WorkflowState.ENQUEUED,
            executor_id=null(),
            recovery_attempts=_next_attempt(),
            owner_token=null(),
            updated_at=dialect.now(),
        )
        .returning(WorkflowStatus.queue, WorkflowStatus.name)
        .execution_options(synchronize_session=False)
    )
    return {(row.queue or INTERNAL_QUEUE, row.name) for row in rows}


def give_up(connection: Connection, dialect: Dialect, workflow_id: str, owner_token: str, error: str) -> None:
    """End an owned run as MAX_RECOVERY_ATTEMPTS_EXCEEDED with an encoded error."""
    connection.execute(
        update(WorkflowStatus)
        .where(WorkflowStatus.workflow_id == workflow_id, WorkflowStatus.owner_token == owner_token)
        .values(
            status=WorkflowState.MAX_RECOVERY_ATTEMPTS_EXCEEDED,
            error=error,
            completed_at=dialect.now(),
            updated_at=dialect.now(),
        )
    )


def hand_over(
    connection: Connection, dialect: Dialect, owned: Sequence[tuple[str, str]], *, counts: bool = False
) -> int:
    """Let any process continue these (workflow ID, owner token) at once; ``counts`` makes it a recovery attempt."""
    tokens = dict(owned)
    rows = connection.execute(
        select(WorkflowStatus.workflow_id, WorkflowStatus.owner_token)
        .where(WorkflowStatus.workflow_id.in_(sorted(tokens)), WorkflowStatus.status == WorkflowState.PENDING)
        .order_by(WorkflowStatus.workflow_id)
        .with_for_update()
    )
    ours = [row.workflow_id for row in rows if tokens[row.workflow_id] == row.owner_token]
    if ours:
        connection.execute(
            update(WorkflowStatus)
            .where(WorkflowStatus.workflow_id.in_(ours))
            .values(
                status=WorkflowState.ENQUEUED,
                queue=func.coalesce(WorkflowStatus.queue, INTERNAL_QUEUE),
                executor_id=null(),
                owner_token=null(),
                recovery_attempts=_next_attempt() if counts else WorkflowStatus.recovery_attempts,
                enqueued_at=dialect.now(),
                updated_at=dialect.now(),
            )
            .execution_options(synchronize_session=False)
        )
    return len(ours)


def cancel(
    connection: Connection, dialect: Dialect, workflow_id: str, *, children: bool, error: str | None = None
) -> list[str]:
    """Cancel a live workflow and (``children``) its live descendants; give the IDs that were cancelled.

    Level by level: once a level is locked, its runs can start no further children unseen. ``error`` is
    the encoded error that those who await the first one get instead of a cancellation.
    """
    cancelled: list[str] = []
    level = [workflow_id]
    while level:
        statuses = select(WorkflowStatus.workflow_id, WorkflowStatus.status).where(
            WorkflowStatus.workflow_id.in_(level)
        )
        locked = connection.execute(statuses.order_by(WorkflowStatus.workflow_id).with_for_update()).all()
        live = [row.workflow_id for row in locked if row.status in LIVE_STATES]
        if live:
            connection.execute(
                update(WorkflowStatus)
                .where(WorkflowStatus.workflow_id.in_(live))
                .values(
                    status=WorkflowState.CANCELLED,
                    error=case((WorkflowStatus.workflow_id == workflow_id, literal(error, WorkflowStatus.error.type))),
                    completed_at=dialect.now(),
                    updated_at=dialect.now(),
                )
            )
        cancelled += live
        below = select(WorkflowStatus.workflow_id).where(WorkflowStatus.parent_id.in_(level))
        level = list(connection.scalars(below)) if children else []
    return cancelled


def let_go(connection: Connection, workflow_id: str, owner_token: str) -> None:
    """Say that the code of a cancelled run has ended: it no longer holds a slot."""
    connection.execute(
        update(WorkflowStatus)
        .where(
            WorkflowStatus.workflow_id == workflow_id,
            WorkflowStatus.owner_token == owner_token,
            WorkflowStatus.status == WorkflowState.CANCELLED,
        )
        .values(owner_token=null())
    )


def stopped_runs(connection: Connection, owned: Sequence[tuple[str, str]]) -> dict[str, WorkflowState | None]:
    """Of these (workflow ID, owner token), those that are no longer their owner's to run.

    CANCELLED: they were cancelled. None: another process owns them, or they are gone.
    """
    if not owned:
        return {}
    rows = connection.execute(
        select(WorkflowStatus.workflow_id, WorkflowStatus.owner_token, WorkflowStatus.status).where(
            WorkflowStatus.workflow_id.in_([workflow_id for workflow_id, _ in owned])
        )
    )
    found = {row.workflow_id: row for row in rows}
    stopped: dict[str, WorkflowState | None] = {}
    for workflow_id, owner_token in owned:
        row = found.get(workflow_id)
        if row is None or row.owner_token != owner_token:
            stopped[workflow_id] = None
        elif row.status == WorkflowState.CANCELLED:
            stopped[workflow_id] = WorkflowState.CANCELLED
    return stopped


def count_stranded(connection: Connection, application: str, runnable: Sequence[Runnable]) -> dict[str, int]:
    """How many runs, by name, wait for code or an instance that is not among ``runnable``.

    Runs of living processes do not wait, whatever their version.
    """
    kind = (WorkflowStatus.name, WorkflowStatus.class_name, WorkflowStatus.config_name)
    # NULL for the instance of what is no method: then it cannot be run here as a method.
    runs_here = or_(can_be_stamped(runnable), is_runnable(runnable))
    statement = (
        select(*kind, func.count())
        .where(
            WorkflowStatus.application == application,
            or_(
                WorkflowStatus.status == WorkflowState.ENQUEUED,
                and_(WorkflowStatus.status == WorkflowState.PENDING, ~_has_living_executor()),
            ),
            ~func.coalesce(runs_here, False),
        )
        .group_by(*kind)
        .order_by(*kind)
    )
    return {_with_instance(*row[:3]): row[3] for row in connection.execute(statement)}


def _with_instance(name: str, class_name: str | None, config_name: str | None) -> str:
    return name if class_name is None else f"{name} of {class_name} {config_name!r}"


def _has_living_executor() -> ColumnElement[bool]:
    return exists().where(Executor.executor_id == WorkflowStatus.executor_id, Executor.expired_at.is_(None))


def _lock_abandoned(connection: Connection, claimant: Claimant, *, is_queued: bool, limit: int) -> list[str]:
    if not claimant.runnable or limit < 1:
        return []
    queued = and_(WorkflowStatus.queue.is_not(None), WorkflowStatus.queue != INTERNAL_QUEUE)
    statement = (
        select(WorkflowStatus.workflow_id)
        .where(
            WorkflowStatus.status == WorkflowState.PENDING,
            WorkflowStatus.application == claimant.application,
            WorkflowStatus.executor_id.is_not(None),
            ~_has_living_executor(),
            queued if is_queued else ~func.coalesce(queued, False),
            is_runnable(claimant.runnable),
        )
        .order_by(WorkflowStatus.sequence)
        .limit(limit)
        .with_for_update(of=WorkflowStatus, skip_locked=True)
    )
    return list(connection.scalars(statement))


def _next_attempt() -> ColumnElement[int]:
    progressed = exists().where(
        StepOutput.workflow_id == WorkflowStatus.workflow_id,
        StepOutput.owner_token == WorkflowStatus.owner_token,
    )
    return case((progressed, 1), else_=WorkflowStatus.recovery_attempts + 1)


def _claimed(connection: Connection, dialect: Dialect, statement: Any) -> list[ClaimedRun]:
    rows = connection.execute(
        statement.returning(*claimed_columns(dialect)).execution_options(synchronize_session=False)
    ).all()
    return [claimed_run(row) for row in sorted(rows, key=lambda row: row.sequence)]
