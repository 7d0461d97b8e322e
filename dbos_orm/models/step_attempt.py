"""A failed attempt of a step that will be tried again, so that a crash does not forget it."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from dbos_orm.models._base import Base
from dbos_orm.models._types import Payload

__all__ = ["StepAttempt"]


class StepAttempt(Base):
    """One failed attempt of one step: written only when an attempt fails."""

    __tablename__ = "dbos_step_attempt"

    workflow_id: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(primary_key=True, server_default="")
    step_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1."""
    name: Mapped[str]
    error: Mapped[str | None] = mapped_column(Payload)
    serializer: Mapped[str] = mapped_column(server_default="json")
    owner_token: Mapped[str]
    write_id: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    next_at: Mapped[datetime | None]
    """When the next attempt may begin; NULL after the last one."""

    def __repr__(self) -> str:
        return f"<StepAttempt {self.workflow_id!r} {self.name!r} attempt {self.attempt}>"
