"""The rows behind the library, as ORM models on one ``metadata``.

Query them, relate yours to them, and give ``metadata`` to whatever wants to know the tables. They live
in the connection's default schema; another one is chosen by ``schema_translate_map``, for these models
and yours alike.
"""

from dbos_orm._states import WorkflowState
from dbos_orm.models._base import Base, metadata
from dbos_orm.models._types import Attributes, Instant, Microseconds, Payload
from dbos_orm.models.executor import Executor
from dbos_orm.models.notification import Notification
from dbos_orm.models.queue import Queue, QueuePartition, RateStart
from dbos_orm.models.schedule import Schedule
from dbos_orm.models.step_attempt import StepAttempt
from dbos_orm.models.step_output import StepOutput
from dbos_orm.models.stream_entry import StreamEntry
from dbos_orm.models.transaction_output import TransactionOutput, transaction_metadata
from dbos_orm.models.workflow_event import WorkflowEvent, WorkflowEventHistory
from dbos_orm.models.workflow_status import WorkflowStatus

__all__ = [
    "Attributes",
    "Base",
    "Executor",
    "Instant",
    "Microseconds",
    "Notification",
    "Payload",
    "Queue",
    "QueuePartition",
    "RateStart",
    "Schedule",
    "StepAttempt",
    "StepOutput",
    "StreamEntry",
    "TransactionOutput",
    "WorkflowEvent",
    "WorkflowEventHistory",
    "WorkflowState",
    "WorkflowStatus",
    "metadata",
    "transaction_metadata",
]
