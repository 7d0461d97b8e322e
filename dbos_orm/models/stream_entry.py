"""What a workflow writes to a stream, entry by entry, while others read."""

from datetime import datetime

from sqlalchemy import Index, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from dbos_orm.models._base import Base
from dbos_orm.models._defaults import SequenceText, ServerInstant
from dbos_orm.models._types import Payload

__all__ = ["StreamEntry"]


class StreamEntry(Base):
    """One entry of one stream; the last one says ``closed`` and has no value."""

    __tablename__ = "dbos_stream_entry"
    __table_args__ = (Index("ix_dbos_stream_entry_order", "workflow_id", "key", "sequence"),)

    workflow_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(primary_key=True, server_default="")
    step_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    entry: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default=text("0"))
    """Counts the entries of one step: with it, writing twice stores once."""
    value: Mapped[str | None] = mapped_column(Payload)
    serializer: Mapped[str] = mapped_column(server_default="json")
    closed: Mapped[bool] = mapped_column(server_default=false())
    sequence: Mapped[str] = mapped_column(
        Text().with_variant(Text(collation="C"), "postgresql"), server_default=SequenceText()
    )
    """A UUIDv7: readers receive the entries in this order."""
    created_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())

    def __repr__(self) -> str:
        return f"<StreamEntry {self.key!r} of {self.workflow_id!r} step {self.step_id} entry {self.entry}>"
