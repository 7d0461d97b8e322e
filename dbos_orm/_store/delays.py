"""Workflows that wait for an instant: delayed by whoever started them, or held because they cannot be read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.engine import Connection

from dbos_orm._dialects import AnyConnection, Dialect
from dbos_orm._states import WorkflowState
from dbos_orm._store.claim_statement import was_begun
from dbos_orm._store.entries import DEBOUNCE_PREFIX, INTERNAL_QUEUE
from dbos_orm.models import WorkflowStatus

_STATUS: Final = WorkflowStatus.__table__


def promote_due(
    connection: AnyConnection, dialect: Dialect, application: str, *, limit: int = 1000
) -> list[tuple[str, str]]:
    """Have up to ``limit`` delayed workflows that are due wait in their queues; give their (queue, name)."""

    def build() -> Any:
        given = cast(bindparam("application", type_=Text()), Text)
        present = select(dialect.now()).scalar_subquery()
        due = (
            select(_STATUS.c.workflow_id)
            .where(
                _STATUS.c.status == literal_column("'DELAYED'"),
                _STATUS.c.application == given,
                _STATUS.c.delay_until <= present,
            )
            .order_by(_STATUS.c.delay_until)
            .limit(cast(bindparam("limit", type_=BigInteger()), BigInteger))
            .with_for_update(skip_locked=True)
        )
        now = dialect.now()
        return (
            update(_STATUS)
            .where(dialect.is_one_of(_STATUS.c.workflow_id, due))
            .values(
                status=literal_column("'ENQUEUED'"),
                enqueued_at=now,
                error=null(),
                deduplication_id=case((_is_debounced(), null()), else_=_STATUS.c.deduplication_id),
                debounce_until=null(),
                updated_at=now,
            )
            .returning(_STATUS.c.queue, _STATUS.c.name)
        )

    rows = dialect.prepared("promote_due", build).execute(connection, {"application": application, "limit": limit})
    return [(row[0], row[1]) for row in rows]


def hold(
    connection: Connection, dialect: Dialect, workflow_id: str, owner_token: str, *, error: str, again_in: timedelta
) -> None:
    """Put an owned run that cannot be read here aside: it keeps no slot, shows ``error``, and is tried again later.

    What never began is as if it had not been claimed; a take-over is not counted.
    """
    now = dialect.now()
    microseconds = literal(round(again_in.total_seconds() * 1_000_000), BigInteger)
    connection.execute(
        update(WorkflowStatus)
        .where(
            WorkflowStatus.workflow_id == workflow_id,
            WorkflowStatus.owner_token == owner_token,
            WorkflowStatus.status == WorkflowState.PENDING,
        )
        .values(
            status=WorkflowState.DELAYED,
            queue=func.coalesce(WorkflowStatus.queue, INTERNAL_QUEUE),
            executor_id=null(),
            owner_token=null(),
            error=error,
            delay_until=dialect.plus_microseconds(now, microseconds),
            started_at=case((was_begun(), WorkflowStatus.started_at), else_=null()),
            deadline=case(
                (was_begun() | WorkflowStatus.timeout.is_(None), WorkflowStatus.deadline),
                # The claim has made the timeout a deadline, unless another deadline was earlier.
                (
                    # Its two instants were not read at the same time.
                    dialect.plus_microseconds(_STATUS.c.deadline, literal(1_000_000, BigInteger))
                    >= dialect.plus_microseconds(_STATUS.c.started_at, WorkflowStatus.timeout),
                    null(),
                ),
                else_=WorkflowStatus.deadline,
            ),
            recovery_attempts=case(
                (WorkflowStatus.recovery_attempts > 0, WorkflowStatus.recovery_attempts - 1),
                else_=WorkflowStatus.recovery_attempts,
            ),
            updated_at=now,
        )
        .execution_options(synchronize_session=False)
    )


def _is_debounced() -> ColumnElement[bool]:
    return func.substr(_STATUS.c.deduplication_id, 1, len(DEBOUNCE_PREFIX)) == literal_column(
        f"'{DEBOUNCE_PREFIX}'", Text
    )
