"""A queue with its limits, and the starts that its rate limit counts."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Index, false
from sqlalchemy.orm import Mapped, mapped_column

from dbos_orm.models._base import Base
from dbos_orm.models._defaults import ServerInstant
from dbos_orm.models._storage import set_storage

__all__ = ["Queue", "RateStart"]


class Queue(Base):
    """The limits of one queue of one application, changeable while it is in use. NULL is no limit.

    In a partitioned queue every limit holds for each partition key by itself.
    """

    __tablename__ = "dbos_queue"

    application: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    concurrency: Mapped[int | None]
    """Runs at a time over all processes."""
    worker_concurrency: Mapped[int | None]
    """Runs at a time in one process."""
    rate_limit: Mapped[int | None]
    """Starts within any ``rate_period``."""
    rate_period: Mapped[timedelta | None]
    partitioned: Mapped[bool] = mapped_column(server_default=false())
    partition_cursor: Mapped[str | None]
    """The partition key that was served last: the next turn begins behind it."""
    paused: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())
    updated_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} of {self.application!r}>"


class RateStart(Base):
    """One start that counts for a rate limit. A run that is handed on keeps its row and its slot."""

    __tablename__ = "dbos_rate_start"
    __table_args__ = (Index("ix_dbos_rate_start_window", "application", "queue", "partition_key", "started_at"),)

    workflow_id: Mapped[str] = mapped_column(primary_key=True)
    owner_token: Mapped[str] = mapped_column(primary_key=True)
    """Of the claim that started it."""
    application: Mapped[str]
    queue: Mapped[str]
    partition_key: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())

    def __repr__(self) -> str:
        return f"<RateStart {self.workflow_id!r} in {self.queue!r}>"


set_storage(RateStart, autovacuum_vacuum_scale_factor=0.05)
