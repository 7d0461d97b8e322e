"""The status row: one per workflow, from its start until it is deleted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import CheckConstraint, ColumnElement, Index, Text, and_, case, false, literal_column, text
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship

from dbos_orm._states import LIVE_STATES, TERMINAL_STATES, WorkflowState
from dbos_orm.models._base import Base
from dbos_orm.models._defaults import MicrosecondsBetween, RandomText, SequenceText, ServerInstant
from dbos_orm.models._storage import set_storage
from dbos_orm.models._types import Attributes, Payload

if TYPE_CHECKING:
    from dbos_orm.models.notification import Notification
    from dbos_orm.models.queue import Queue
    from dbos_orm.models.step_output import StepOutput
    from dbos_orm.models.workflow_event import WorkflowEvent

__all__ = ["WorkflowStatus"]

_STATES = ", ".join(repr(state.value) for state in WorkflowState)
_WAITING_STATES = (WorkflowState.DELAYED, WorkflowState.ENQUEUED)
_LIVE = "status IN ('ENQUEUED', 'DELAYED', 'PENDING')"


def _index(purpose: str, *columns: str, where: str | None = None, unique: bool = False) -> Index:
    predicate = None if where is None else text(where)
    return Index(
        f"ix_dbos_workflow_status_{purpose}",
        *columns,
        unique=unique,
        postgresql_where=predicate,
        sqlite_where=predicate,
    )


class WorkflowStatus(Base):
    """A workflow: what was asked for, who runs it, and how it ended.

    A row is owned while ``owner_token`` is set; every write of its owner carries that token. Reading
    is free to everybody; to change a row use the library, which knows the rules of ownership.
    """

    __tablename__ = "dbos_workflow_status"
    __table_args__ = (
        CheckConstraint(f"status IN ({_STATES})", name="status"),
        # What a dispatcher may claim. Name and version lead because a process claims only what it can
        # run: rows of other versions must not stand in the way of the ones behind them.
        _index(
            "claim",
            *("application", "queue", "name", "version", "priority", "sequence"),
            where="status = 'ENQUEUED'",
        ),
        _index(
            "partition",
            *("application", "queue", "partition_key", "priority", "sequence"),
            where="status = 'ENQUEUED' AND partition_key IS NOT NULL",
        ),
        _index(
            "running",
            *("application", "queue", "partition_key"),
            where="status = 'PENDING' AND queue IS NOT NULL",
        ),
        _index("owned", "executor_id", where="status = 'PENDING'"),
        # A cancelled run keeps its slot, and its owner must hear of it, until the owner lets go.
        _index("letting_go", "executor_id", where="status = 'CANCELLED' AND owner_token IS NOT NULL"),
        _index("delayed", "delay_until", where="status = 'DELAYED'"),
        _index("wake", "wake_at", where="status = 'PENDING' AND wake_at IS NOT NULL"),
        _index("waiting_for", "waiting_for", where="status = 'PENDING' AND waiting_for IS NOT NULL"),
        _index("deadline", "deadline", where=f"{_LIVE} AND deadline IS NOT NULL"),
        _index(
            "deduplication",
            *("application", "queue", "deduplication_id"),
            where=f"{_LIVE} AND deduplication_id IS NOT NULL",
            unique=True,
        ),
        _index("parent", "parent_id", where="parent_id IS NOT NULL"),
        _index("forked_from", "forked_from", where="forked_from IS NOT NULL"),
        _index("sequence", "sequence"),
        _index("completed", "completed_at", where="completed_at IS NOT NULL"),
    )

    workflow_id: Mapped[str] = mapped_column(primary_key=True)
    application: Mapped[str]
    name: Mapped[str]
    class_name: Mapped[str | None]
    config_name: Mapped[str | None]
    version: Mapped[str | None]
    """The version of the code that began it; NULL until the first claim, unless pinned."""
    version_pinned: Mapped[bool] = mapped_column(server_default=false())
    generation: Mapped[str] = mapped_column(server_default=RandomText())
    """Random; another one after a rewind, a restart, or a delete and a new start under the same ID."""
    status: Mapped[str] = mapped_column(server_default=WorkflowState.ENQUEUED.value)
    """A ``WorkflowState``."""
    input: Mapped[str | None] = mapped_column(Payload)
    output: Mapped[str | None] = mapped_column(Payload)
    error: Mapped[str | None] = mapped_column(Payload)
    serializer: Mapped[str] = mapped_column(server_default="json")
    """The name of the serializer that wrote input, output and error."""
    executor_id: Mapped[str | None]
    """The process that runs it, or ran it last."""
    owner_token: Mapped[str | None]
    """Set while somebody owns the run; a write with another token is refused."""
    recovery_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Take-overs since the last step that was recorded."""
    queue: Mapped[str | None]
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    """Lower is earlier."""
    partition_key: Mapped[str | None]
    deduplication_id: Mapped[str | None]
    delay_until: Mapped[datetime | None]
    debounce_until: Mapped[datetime | None]
    """The instant beyond which no later call can push ``delay_until``."""
    timeout: Mapped[timedelta | None]
    """Counts from the first claim, which turns it into the ``deadline``."""
    deadline: Mapped[datetime | None]
    wake_at: Mapped[datetime | None]
    """When a suspended run must be brought back, whatever else happens."""
    waiting_for: Mapped[str | None]
    """What a suspended run waits for besides the time."""
    parent_id: Mapped[str | None]
    parent_step: Mapped[str | None]
    """The path of the parent's step that started it, such as ``3`` or ``3.2``."""
    forked_from: Mapped[str | None]
    attributes: Mapped[dict[str, Any] | None] = mapped_column(Attributes)
    authenticated_user: Mapped[str | None]
    assumed_role: Mapped[str | None]
    roles: Mapped[list[str] | None] = mapped_column(Attributes)
    schedule: Mapped[str | None]
    """The schedule that started it."""
    sequence: Mapped[str] = mapped_column(
        # Compared byte by byte: its order must not depend on the locale, and is cheaper so.
        Text().with_variant(Text(collation="C"), "postgresql"),
        server_default=SequenceText(),
    )
    """A UUIDv7 made at the insert: the order of starts, and the tie-break where instants are equal."""
    created_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())
    enqueued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())

    # No foreign keys stand behind these: a checkpoint would pay for one at every insert.
    steps: Mapped[list[StepOutput]] = relationship(
        primaryjoin="WorkflowStatus.workflow_id == foreign(StepOutput.workflow_id)",
        order_by="(StepOutput.scope, StepOutput.step_id)",
        viewonly=True,
    )
    parent: Mapped[WorkflowStatus | None] = relationship(
        primaryjoin="foreign(WorkflowStatus.parent_id) == remote(WorkflowStatus.workflow_id)",
        viewonly=True,
    )
    children: Mapped[list[WorkflowStatus]] = relationship(
        primaryjoin="WorkflowStatus.workflow_id == remote(foreign(WorkflowStatus.parent_id))",
        order_by="WorkflowStatus.sequence",
        viewonly=True,
    )
    messages: Mapped[list[Notification]] = relationship(
        primaryjoin="WorkflowStatus.workflow_id == foreign(Notification.workflow_id)",
        order_by="Notification.sequence",
        viewonly=True,
    )
    events: Mapped[list[WorkflowEvent]] = relationship(
        primaryjoin="WorkflowStatus.workflow_id == foreign(WorkflowEvent.workflow_id)",
        order_by="WorkflowEvent.key",
        viewonly=True,
    )
    queue_row: Mapped[Queue | None] = relationship(
        primaryjoin=(
            "and_(foreign(WorkflowStatus.application) == remote(Queue.application), "
            "foreign(WorkflowStatus.queue) == remote(Queue.name))"
        ),
        viewonly=True,
    )
    """The limits and the counts of its queue; ``queue`` is the name alone."""

    @property
    def state(self) -> WorkflowState:
        """The status as a member of the enum."""
        return WorkflowState(self.status)

    @hybrid_property
    def is_live(self) -> bool:
        """Whether it waits, runs or is suspended; usable in ``where``."""
        return self.status in LIVE_STATES

    @is_live.inplace.expression
    @classmethod
    def _is_live_expression(cls) -> ColumnElement[bool]:
        return cls.status.in_(sorted(LIVE_STATES))

    @hybrid_property
    def is_terminal(self) -> bool:
        """Whether it has ended; usable in ``where``."""
        return self.status in TERMINAL_STATES

    @is_terminal.inplace.expression
    @classmethod
    def _is_terminal_expression(cls) -> ColumnElement[bool]:
        return cls.status.in_(sorted(TERMINAL_STATES))

    @hybrid_property
    def is_waiting(self) -> bool:
        """Whether it waits in a queue, for its turn or for its time; usable in ``where``."""
        return self.status in _WAITING_STATES

    @is_waiting.inplace.expression
    @classmethod
    def _is_waiting_expression(cls) -> ColumnElement[bool]:
        return cls.status.in_(_WAITING_STATES)

    @hybrid_property
    def is_held(self) -> bool:
        """Whether it waits because the process that claimed it could not read it; usable in ``where``.

        ``error`` says why. It is tried again at ``delay_until``, by whoever can, and takes no slot meanwhile.
        """
        return self.status == WorkflowState.DELAYED and self.error is not None

    @is_held.inplace.expression
    @classmethod
    def _is_held_expression(cls) -> ColumnElement[bool]:
        return and_(cls.status == literal_column("'DELAYED'"), cls.error.is_not(None))

    @hybrid_property
    def wait(self) -> timedelta | None:
        """From when its turn could come to its first start; usable in ``order_by``.

        None (NULL) before that start, and once it was handed from one process to another: it is enqueued anew then.
        """
        if self.enqueued_at is None or self.started_at is None or self.enqueued_at > self.started_at:
            return None
        return self.started_at - self.enqueued_at

    @wait.inplace.expression
    @classmethod
    def _wait_expression(cls) -> ColumnElement[timedelta | None]:
        wait = MicrosecondsBetween(cls.enqueued_at, cls.started_at)
        return case((cls.enqueued_at <= cls.started_at, wait), else_=None)

    @hybrid_property
    def duration(self) -> timedelta | None:
        """From its first start to its end; None (NULL) before it has ended; usable in ``order_by``."""
        if self.started_at is None or self.completed_at is None:
            return None
        return self.completed_at - self.started_at

    @duration.inplace.expression
    @classmethod
    def _duration_expression(cls) -> ColumnElement[timedelta | None]:
        return MicrosecondsBetween(cls.started_at, cls.completed_at)

    def __repr__(self) -> str:
        return f"<WorkflowStatus {self.workflow_id!r} {self.name!r} {self.status}>"


# A row is updated two to five times and then rests: leave room on its page for that, and clean up
# after thousands of finished runs, not after a fifth of a table of millions.
set_storage(
    WorkflowStatus,
    fillfactor=80,
    autovacuum_vacuum_scale_factor=0.02,
    autovacuum_analyze_scale_factor=0.05,
)
