"""A message to a workflow: sent by anybody, received by exactly one ``recv``."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from dbos_orm.models._base import Base
from dbos_orm.models._defaults import SequenceText, ServerInstant
from dbos_orm.models._storage import set_storage
from dbos_orm.models._types import Payload

__all__ = ["Notification"]

_UNCONSUMED = text("consumed_at IS NULL")


class Notification(Base):
    """One message to one workflow. Its ID is made by the sender, so that sending twice stores once.

    ``consumed_at`` and the step that received it are written with that step's own row; the message
    itself stays, so that a fork or a rewind can give it back.
    """

    __tablename__ = "dbos_notification"
    __table_args__ = (
        Index(
            "ix_dbos_notification_unconsumed",
            *("workflow_id", "topic", "sequence"),
            postgresql_where=_UNCONSUMED,
            sqlite_where=_UNCONSUMED,
        ),
    )

    workflow_id: Mapped[str] = mapped_column(primary_key=True)
    """The receiver."""
    message_id: Mapped[str] = mapped_column(primary_key=True)
    """The idempotency key, given or made by the sender."""
    topic: Mapped[str] = mapped_column(server_default="")
    message: Mapped[str] = mapped_column(Payload)
    serializer: Mapped[str] = mapped_column(server_default="json")
    sender_id: Mapped[str | None]
    """The workflow that sent it, if one did."""
    sender_step: Mapped[str | None]
    """The path of the sender's step."""
    sequence: Mapped[str] = mapped_column(
        Text().with_variant(Text(collation="C"), "postgresql"), server_default=SequenceText()
    )
    """A UUIDv7: messages of one topic are received in this order."""
    consumed_at: Mapped[datetime | None]
    consumed_scope: Mapped[str | None]
    consumed_step_id: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())

    def __repr__(self) -> str:
        return f"<Notification {self.message_id!r} to {self.workflow_id!r} topic {self.topic!r}>"


set_storage(Notification, fillfactor=90, autovacuum_vacuum_scale_factor=0.05)
