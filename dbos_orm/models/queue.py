"""A queue with its limits and what is in it now, and the starts that its rate limit counts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import (
    ColumnElement,
    Index,
    Integer,
    ScalarSelect,
    Select,
    SQLColumnExpression,
    cast,
    false,
    func,
    literal_column,
    null,
    select,
)
from sqlalchemy.orm import Mapped, column_property, declared_attr, mapped_column, relationship

from dbos_orm.models._base import Base
from dbos_orm.models._defaults import MicrosecondsBetween, ServerInstant
from dbos_orm.models._storage import set_storage
from dbos_orm.models._types import Instant
from dbos_orm.models.workflow_status import WorkflowStatus

__all__ = ["Queue", "QueuePartition", "RateStart"]


_SINCE = func.coalesce(WorkflowStatus.enqueued_at, WorkflowStatus.created_at)
"""From when a workflow waits; a row that was inserted by hand may not say it."""


def _status_is(state: str) -> ColumnElement[bool]:
    # As a literal: a server that plans for any parameter cannot use an index over the rows of one state.
    return WorkflowStatus.status == literal_column(f"'{state}'")


def _of_queue(
    application: Mapped[str], name: Mapped[str], value: ColumnElement[Any], *conditions: SQLColumnExpression[bool]
) -> ScalarSelect[Any]:
    own = (WorkflowStatus.application == application, WorkflowStatus.queue == name)
    return select(value).where(*own, *conditions).correlate_except(WorkflowStatus).scalar_subquery()


class Queue(Base):
    """The limits of one queue of one application, changeable while it is in use. NULL is no limit.

    In a partitioned queue every limit holds for each partition key by itself. What is in the queue now (``depth``,
    ``delayed``, ``running``, ``held``, ``lag``) are expressions for ``select``, ``where`` and ``order_by``; an object
    asks the database for one when it is read first, and keeps it until it is refreshed (``undefer_group("now")`` has
    all of them loaded at once).
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

    depth: Mapped[int] = column_property(
        _of_queue(application, name, func.count(), _status_is("ENQUEUED")), deferred=True, group="now"
    )
    """Workflows that wait for their turn."""
    delayed: Mapped[int] = column_property(
        _of_queue(application, name, func.count(), _status_is("DELAYED"), WorkflowStatus.error.is_(None)),
        deferred=True,
        group="now",
    )
    """Workflows that wait for their time."""
    running: Mapped[int] = column_property(
        _of_queue(application, name, func.count(), _status_is("PENDING")), deferred=True, group="now"
    )
    """Workflows that were claimed and have not ended."""
    held: Mapped[int] = column_property(
        _of_queue(application, name, func.count(), WorkflowStatus.is_held), deferred=True, group="now"
    )
    """Workflows that the process which claimed them could not read; see ``WorkflowStatus.is_held``."""
    lag: Mapped[timedelta | None] = column_property(
        _of_queue(
            application,
            name,
            MicrosecondsBetween(func.min(_SINCE), ServerInstant()),
            _status_is("ENQUEUED"),
        ),
        deferred=True,
        group="now",
    )
    """For how long the oldest workflow has waited for its turn; None (NULL) if none waits."""
    partitions: Mapped[list[QueuePartition]] = relationship(
        primaryjoin=(
            "and_(foreign(QueuePartition.application) == Queue.application, "
            "foreign(QueuePartition.queue) == Queue.name)"
        ),
        order_by="QueuePartition.partition_key",
        viewonly=True,
    )
    """The partitions in which something waits or runs."""

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} of {self.application!r}>"


def _partitions() -> Select[Any]:
    """Both branches are read off an index, also when one queue is asked for: a condition reaches into them."""
    one, none = (literal_column(figure, Integer) for figure in "10")
    key = (WorkflowStatus.application, WorkflowStatus.queue, WorkflowStatus.partition_key)
    waiting = select(*key, one.label("waiting"), none.label("running"), _SINCE.label("since")).where(
        _status_is("ENQUEUED"), WorkflowStatus.partition_key.is_not(None)
    )
    # Those that run have no part in the lag.
    running = select(*key, none, one, cast(null(), Instant())).where(
        _status_is("PENDING"), WorkflowStatus.queue.is_not(None), WorkflowStatus.partition_key.is_not(None)
    )
    live = waiting.union_all(running).subquery()
    return select(
        live.c.application,
        live.c.queue,
        live.c.partition_key,
        func.sum(live.c.waiting).label("depth"),
        func.sum(live.c.running).label("running"),
        MicrosecondsBetween(func.min(live.c.since), ServerInstant()).label("lag"),
    ).group_by(live.c.application, live.c.queue, live.c.partition_key)


class QueuePartition(Base):
    """A partition of a queue in which something waits or runs now: a query, not a table. For reading only."""

    __table__: ClassVar[Any] = _partitions().subquery("partitions")

    @declared_attr.directive
    @classmethod
    def __mapper_args__(cls) -> dict[str, Any]:
        return {"primary_key": [cls.__table__.c[key] for key in ("application", "queue", "partition_key")]}

    application: Mapped[str]
    queue: Mapped[str]
    partition_key: Mapped[str]
    depth: Mapped[int]
    """Workflows of this key that wait for their turn."""
    running: Mapped[int]
    """Workflows of this key that were claimed and have not ended."""
    lag: Mapped[timedelta | None]
    """For how long the oldest has waited for its turn; None (NULL) if none waits."""

    def __repr__(self) -> str:
        return f"<QueuePartition {self.partition_key!r} of {self.queue!r}>"


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
