"""Durable workflows that live in your SQLAlchemy models."""

from dbos_orm._binds import async_sqlite_engine
from dbos_orm._calls import Call
from dbos_orm._context import RunContext, current_run
from dbos_orm._dialects import sqlite_engine
from dbos_orm._futures import StepFuture
from dbos_orm._options import WorkflowOptions
from dbos_orm._queue_control import QueueLimits
from dbos_orm._queue_settings import Debounce, RateLimit
from dbos_orm._queues import Queue
from dbos_orm._retry import Retry
from dbos_orm._services.scheduling import ScheduleDefinition, ScheduleInfo
from dbos_orm._settings import StepOptions
from dbos_orm._store.queues import PartitionInfo, QueueInfo
from dbos_orm.app import DBOS
from dbos_orm.async_app import AsyncDBOS
from dbos_orm.config import Config
from dbos_orm.handles import (
    AsyncStagedHandle,
    AsyncWorkflowHandle,
    StagedHandle,
    StepInfo,
    WorkflowHandle,
    WorkflowInfo,
)
from dbos_orm.models import WorkflowState, WorkflowStatus

__all__ = [
    "DBOS",
    "AsyncDBOS",
    "AsyncStagedHandle",
    "AsyncWorkflowHandle",
    "Call",
    "Config",
    "Debounce",
    "PartitionInfo",
    "Queue",
    "QueueInfo",
    "QueueLimits",
    "RateLimit",
    "Retry",
    "RunContext",
    "ScheduleDefinition",
    "ScheduleInfo",
    "StagedHandle",
    "StepFuture",
    "StepInfo",
    "StepOptions",
    "WorkflowHandle",
    "WorkflowInfo",
    "WorkflowOptions",
    "WorkflowState",
    "WorkflowStatus",
    "async_sqlite_engine",
    "current_run",
    "sqlite_engine",
]
