"""Workflows and steps as frozen values, for who looks at them from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from dbos_orm._states import WorkflowState
from dbos_orm.models import StepOutput, WorkflowStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInfo:
    """A workflow as it was when somebody looked."""

    workflow_id: str
    application: str
    name: str
    status: WorkflowState
    version: str | None
    queue: str | None
    priority: int
    partition_key: str | None
    deduplication_id: str | None
    delay_until: datetime | None
    executor_id: str | None
    recovery_attempts: int
    parent_id: str | None
    attributes: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    deadline: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """A recorded step. ``path`` is its place (``3``, or ``3.2``); ``error`` is what it raised."""

    path: str
    name: str
    kind: str
    output: Any
    error: BaseException | None
    child_id: str | None
    attempts: int
    started_at: datetime | None
    completed_at: datetime | None
    wake_at: datetime | None


_INFO_COLUMNS = [getattr(WorkflowStatus, name) for name in WorkflowInfo.__dataclass_fields__]


def describe(connection: Connection, workflow_id: str) -> WorkflowInfo | None:
    """A workflow, or None if there is none of this ID."""
    row = connection.execute(select(*_INFO_COLUMNS).where(WorkflowStatus.workflow_id == workflow_id)).one_or_none()
    if row is None:
        return None
    return WorkflowInfo(**{**row._asdict(), "status": WorkflowState(row.status)})


def steps_of(connection: Connection, workflow_id: str) -> list[Any]:
    """The rows of all recorded steps of a workflow, payloads still encoded, in the order of their numbers."""
    columns = (
        StepOutput.scope,
        StepOutput.step_id,
        StepOutput.name,
        StepOutput.kind,
        StepOutput.output,
        StepOutput.error,
        StepOutput.serializer,
        StepOutput.child_id,
        StepOutput.attempts,
        StepOutput.started_at,
        StepOutput.completed_at,
        StepOutput.wake_at,
    )
    statement = select(*columns).where(StepOutput.workflow_id == workflow_id)
    return list(connection.execute(statement.order_by(StepOutput.scope, StepOutput.step_id)))
