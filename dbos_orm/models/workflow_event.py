"""Values that a workflow publishes under keys, for anybody to read."""

from datetime import datetime

from sqlalchemy import Text, text
from sqlalchemy.orm import Mapped, mapped_column

from dbos_orm.models._base import Base
from dbos_orm.models._defaults import SequenceText, ServerInstant
from dbos_orm.models._storage import set_storage
from dbos_orm.models._types import Payload

__all__ = ["WorkflowEvent", "WorkflowEventHistory"]


class WorkflowEvent(Base):
    """The newest value of one key of one workflow."""

    __tablename__ = "dbos_workflow_event"

    workflow_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Payload)
    serializer: Mapped[str] = mapped_column(server_default="json")
    scope: Mapped[str] = mapped_column(server_default="")
    step_id: Mapped[int] = mapped_column(server_default=text("0"))
    """The step that set it; 0 when it was set from outside."""
    created_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())
    updated_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())

    def __repr__(self) -> str:
        return f"<WorkflowEvent {self.key!r} of {self.workflow_id!r}>"


set_storage(WorkflowEvent, fillfactor=80, autovacuum_vacuum_scale_factor=0.05)


class WorkflowEventHistory(Base):
    """The last value that each step gave to a key: what a fork from the middle needs."""

    __tablename__ = "dbos_workflow_event_history"

    workflow_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(primary_key=True, server_default="")
    step_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default=text("0"))
    value: Mapped[str] = mapped_column(Payload)
    serializer: Mapped[str] = mapped_column(server_default="json")
    sequence: Mapped[str] = mapped_column(
        Text().with_variant(Text(collation="C"), "postgresql"), server_default=SequenceText()
    )
    created_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())

    def __repr__(self) -> str:
        return f"<WorkflowEventHistory {self.key!r} of {self.workflow_id!r} step {self.step_id}>"
