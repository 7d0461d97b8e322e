"""The processes that execute workflows, and their signs of life."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, exists, update
from sqlalchemy.engine import Connection

from dbos_orm._dialects import Dialect
from dbos_orm._states import WorkflowState
from dbos_orm.models import Executor, WorkflowStatus


class ProcessIdentity(NamedTuple):
    """What names a process on its host beyond doubt; None where the system does not tell."""

    hostname: str
    boot_id: str | None
    pid_namespace: str | None
    pid: int
    process_started: str | None


class ObservedExecutor(NamedTuple):
    """Another process of the application, as it looks now."""

    executor_id: str
    heartbeat: int
    lease: timedelta
    boot_id: str | None
    pid_namespace: str | None
    pid: int | None
    process_started: str | None


def register(
    connection: Connection,
    dialect: Dialect,
    executor_id: str,
    *,
    application: str,
    lease: timedelta,
    identity: ProcessIdentity,
    library_version: str,
) -> None:
    """Add a living executor; adding it again changes nothing."""
    now = dialect.now()
    row = dialect.insert(Executor.__table__).values(
        executor_id=executor_id,
        application=application,
        heartbeat=0,
        lease=lease,
        library_version=library_version,
        started_at=now,
        renewed_at=now,
        **identity._asdict(),
    )
    connection.execute(row.on_conflict_do_nothing())


def renew(connection: Connection, dialect: Dialect, executor_id: str) -> bool:
    """Give a sign of life; False if the executor was declared dead, and must not go on as if it were not."""
    statement = (
        update(Executor)
        .where(Executor.executor_id == executor_id, Executor.expired_at.is_(None))
        .values(heartbeat=Executor.heartbeat + 1, renewed_at=dialect.now())
    )
    return connection.execute(statement).rowcount == 1


def expire(connection: Connection, dialect: Dialect, executor_id: str, *, heartbeat: int) -> bool:
    """Declare an executor dead unless it gave a sign of life after ``heartbeat``; True if it is dead now.

    From then on ``renew`` fails for it, so a process that renews its lease is never robbed.
    """
    statement = (
        update(Executor)
        .where(
            Executor.executor_id == executor_id,
            Executor.heartbeat == heartbeat,
            Executor.expired_at.is_(None),
        )
        .values(expired_at=dialect.now())
    )
    return connection.execute(statement).rowcount == 1


def remove(connection: Connection, executor_id: str) -> None:
    """Forget an executor that has ended in an orderly way."""
    connection.execute(delete(Executor).where(Executor.executor_id == executor_id))


def remove_expired(connection: Connection, application: str) -> None:
    """Forget dead executors that own nothing any more."""
    owns = exists().where(
        WorkflowStatus.executor_id == Executor.executor_id, WorkflowStatus.status == WorkflowState.PENDING
    )
    connection.execute(
        delete(Executor)
        .where(Executor.application == application, Executor.expired_at.is_not(None), ~owns)
        .execution_options(synchronize_session=False)
    )
