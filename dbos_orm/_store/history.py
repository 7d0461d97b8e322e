"""What is recorded of a workflow: its steps for a replay, its outcome for who awaits it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Integer, Select, Text, bindparam, cast, literal, null, select, union_all
from sqlalchemy.engine import Connection

from dbos_orm._context import RecordedAttempt, RecordedStep, StepKey
from dbos_orm._dialects import Dialect
from dbos_orm._states import TERMINAL_STATES, WorkflowState
from dbos_orm.models import StepAttempt, StepOutput, WorkflowStatus

_COMPLETED: Final = -1
"""In a history, the attempt number of the row that holds a step's outcome."""


class History(NamedTuple):
    """All recorded steps and failed attempts of one workflow."""

    steps: dict[StepKey, RecordedStep]
    attempts: dict[StepKey, list[RecordedAttempt]]


class RecordedRun(NamedTuple):
    """A workflow's row, as far as deciding about it needs."""

    workflow_id: str
    application: str
    name: str
    class_name: str | None
    config_name: str | None
    status: WorkflowState
    generation: str
    owner_token: str | None
    queue: str | None
    input: str | None
    output: str | None
    error: str | None
    serializer: str
    recovery_attempts: int
    deadline: datetime | None
    parent_id: str | None
    parent_step: str | None

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.status in TERMINAL_STATES


def find_run(connection: Connection, workflow_id: str) -> RecordedRun | None:
    """The row of a workflow, or None if there is none."""
    row = connection.execute(_FIND_RUN, {"workflow_id": workflow_id}).one_or_none()
    return None if row is None else RecordedRun(*row)._replace(status=WorkflowState(row.status))


def find_deadline(connection: Connection, dialect: Dialect, workflow_id: str) -> tuple[datetime | None, float | None]:
    """The deadline of a workflow, and the seconds that are left until it."""
    left = dialect.seconds_until(WorkflowStatus.deadline)
    row = connection.execute(
        select(WorkflowStatus.deadline, left).where(WorkflowStatus.workflow_id == workflow_id)
    ).one_or_none()
    return (None, None) if row is None else (row[0], row[1])


def find_step(connection: Connection, dialect: Dialect, workflow_id: str, key: StepKey) -> RecordedStep | None:
    """What is recorded of one step, or None."""
    steps = _steps(dialect).where(
        StepOutput.workflow_id == workflow_id,
        StepOutput.scope == key.scope,
        StepOutput.step_id == key.step_id,
    )
    row = connection.execute(steps).one_or_none()
    return None if row is None else _recorded_step(row, dialect.clock.monotonic())


def load_history(connection: Connection, dialect: Dialect, workflow_id: str) -> History:
    """Everything that a replay needs, in one query."""
    everything = union_all(
        _steps(dialect).where(StepOutput.workflow_id == workflow_id),
        _attempts(dialect).where(StepAttempt.workflow_id == workflow_id),
    ).order_by("attempt")
    found = History({}, {})
    now = dialect.clock.monotonic()
    for row in connection.execute(everything):
        key = StepKey(row.scope, row.step_id)
        if row.attempt == _COMPLETED:
            found.steps[key] = _recorded_step(row, now)
        else:
            attempt = RecordedAttempt(row.attempt, row.error, row.serializer, row.remaining or 0.0, now)
            found.attempts.setdefault(key, []).append(attempt)
    return found


_FIND_RUN: Final = select(*(getattr(WorkflowStatus, name) for name in RecordedRun._fields)).where(
    WorkflowStatus.workflow_id == bindparam("workflow_id")
)


def _steps(dialect: Dialect) -> Select[Any]:
    columns: list[Any] = [
        StepOutput.scope,
        StepOutput.step_id,
        literal(_COMPLETED, Integer).label("attempt"),
        StepOutput.name,
        StepOutput.kind,
        _text(StepOutput.output, "output"),
        _text(StepOutput.error, "error"),
        StepOutput.serializer,
        StepOutput.child_id,
        StepOutput.write_id,
        StepOutput.owner_token,
        StepOutput.digest,
        dialect.seconds_until(StepOutput.wake_at).label("remaining"),
    ]
    return select(*columns)


def _attempts(dialect: Dialect) -> Select[Any]:
    columns: list[Any] = [
        StepAttempt.scope,
        StepAttempt.step_id,
        StepAttempt.attempt,
        StepAttempt.name,
        literal("attempt").label("kind"),
        cast(null(), Text).label("output"),
        _text(StepAttempt.error, "error"),
        StepAttempt.serializer,
        cast(null(), Text).label("child_id"),
        StepAttempt.write_id,
        StepAttempt.owner_token,
        cast(null(), Text).label("digest"),
        dialect.seconds_until(StepAttempt.next_at).label("remaining"),
    ]
    return select(*columns)


def _text(payload: Any, name: str) -> ColumnElement[Any]:
    # A UNION takes the type of its first branch: as text on both sides there is nothing to convert.
    return cast(payload, Text).label(name)


def _recorded_step(row: Any, now: float) -> RecordedStep:
    return RecordedStep(
        row.name,
        row.kind,
        row.output,
        row.error,
        row.serializer,
        row.child_id,
        row.write_id,
        row.owner_token,
        row.digest,
        row.remaining,
        now,
    )
