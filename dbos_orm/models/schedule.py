"""A schedule: which workflow starts when."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import CheckConstraint, ColumnElement, false, func
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from dbos_orm.models._base import Base
from dbos_orm.models._defaults import ServerInstant
from dbos_orm.models._types import Payload

__all__ = ["Schedule"]


class Schedule(Base):
    """One schedule of one application.

    ``next_fire_at`` is advanced by compare-and-set in the transaction that inserts the run, so that
    each slot is run once, however many processes watch.
    """

    __tablename__ = "dbos_schedule"
    __table_args__ = (CheckConstraint("catch_up IN ('none', 'last', 'all')", name="catch_up"),)

    application: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    workflow_name: Mapped[str]
    class_name: Mapped[str | None]
    config_name: Mapped[str | None]
    expression: Mapped[str | None]
    """The cron text; NULL for a trigger that only code can make."""
    trigger: Mapped[str | None]
    """The trigger as people read it."""
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    queue: Mapped[str | None]
    context: Mapped[str | None] = mapped_column(Payload)
    serializer: Mapped[str] = mapped_column(server_default="json")
    catch_up: Mapped[str] = mapped_column(server_default="last")
    """What happens to slots that passed while nobody watched: none, last or all."""
    declared: Mapped[bool] = mapped_column(server_default=false())
    """Whether code declares it; otherwise it was made at run time."""
    paused: Mapped[bool] = mapped_column(server_default=false())
    next_fire_at: Mapped[datetime | None]
    last_fire_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())
    updated_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())

    @hybrid_property
    def is_due(self) -> bool:
        """Whether its next slot has come, and its run has not been started yet; false of a paused one.

        An object compares with the clock of its process, a statement with that of the database.
        """
        return not self.paused and self.next_fire_at is not None and self.next_fire_at <= datetime.now(UTC)

    @is_due.inplace.expression
    @classmethod
    def _is_due(cls) -> ColumnElement[bool]:
        return ~cls.paused & func.coalesce(cls.next_fire_at <= ServerInstant(), false())

    def __repr__(self) -> str:
        return f"<Schedule {self.name!r} of {self.application!r}>"
