"""The checkpoint of a step: its recorded value or error."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from dbos_orm.models._base import Base
from dbos_orm.models._storage import set_storage
from dbos_orm.models._types import Payload

if TYPE_CHECKING:
    from dbos_orm.models.step_attempt import StepAttempt
    from dbos_orm.models.workflow_status import WorkflowStatus

__all__ = ["StepOutput"]

_HAS_CHILD = text("child_id IS NOT NULL")


class StepOutput(Base):
    """One recorded step. Its row exists exactly when the step will not be run again.

    A step that waits is recorded twice: first its ``wake_at``, then, in the same row, the outcome
    and ``completed_at``. No foreign key to the status row: deletes are explicit.
    """

    __tablename__ = "dbos_step_output"
    __table_args__ = (
        Index("ix_dbos_step_output_child", "child_id", postgresql_where=_HAS_CHILD, sqlite_where=_HAS_CHILD),
    )

    workflow_id: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(primary_key=True, server_default="")
    """The path of the scope it was drawn in: empty for the run's own task, else such as ``3`` or ``3.2``."""
    step_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1, in the order of the calls in its scope."""
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default="step")
    """What was done: step, transaction, sleep, child, result, now, ..."""
    output: Mapped[str | None] = mapped_column(Payload)
    error: Mapped[str | None] = mapped_column(Payload)
    serializer: Mapped[str] = mapped_column(server_default="json")
    child_id: Mapped[str | None]
    owner_token: Mapped[str]
    """Of the run that recorded it."""
    write_id: Mapped[int] = mapped_column(BigInteger)
    """Made by the writer; the same one again is the same write, whose answer was lost."""
    digest: Mapped[str | None]
    """Of the arguments, outside the root scope, where the order of calls alone proves nothing."""
    attempts: Mapped[int] = mapped_column(server_default=text("1"))
    wake_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]

    workflow: Mapped[WorkflowStatus | None] = relationship(
        primaryjoin="foreign(StepOutput.workflow_id) == WorkflowStatus.workflow_id",
        viewonly=True,
    )
    child: Mapped[WorkflowStatus | None] = relationship(
        primaryjoin="foreign(StepOutput.child_id) == WorkflowStatus.workflow_id",
        viewonly=True,
    )
    failed_attempts: Mapped[list[StepAttempt]] = relationship(
        primaryjoin=(
            "and_(StepOutput.workflow_id == foreign(StepAttempt.workflow_id), "
            "StepOutput.scope == foreign(StepAttempt.scope), "
            "StepOutput.step_id == foreign(StepAttempt.step_id))"
        ),
        order_by="StepAttempt.attempt",
        viewonly=True,
    )

    @property
    def path(self) -> str:
        """The step's place as people write it: ``3``, or ``3.2`` for the second step of scope 3."""
        return f"{self.scope}.{self.step_id}" if self.scope else str(self.step_id)

    def __repr__(self) -> str:
        return f"<StepOutput {self.workflow_id!r} {self.path} {self.name!r}>"


# Written once and hardly ever changed, so the pages may be full.
set_storage(
    StepOutput,
    autovacuum_vacuum_scale_factor=0.05,
    autovacuum_vacuum_insert_scale_factor=0.05,
    autovacuum_analyze_scale_factor=0.05,
)
