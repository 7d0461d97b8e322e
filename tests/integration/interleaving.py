"""What tests of two actors need: a place where one is held, and another who acts meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from dbos_orm import DBOS, Config, WorkflowState
from dbos_orm.models import WorkflowStatus
from tests.databases import TestDatabase

UNAWARE = Config(tick=600)
"""An application that learns of nothing but by what it writes."""
PATIENCE = 20.0


class Place:
    """Where somebody is held until the test lets him go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._is_open = threading.Event()

    def hold(self) -> None:
        """Say that somebody is here, and wait."""
        self._reached.set()
        assert self._is_open.wait(PATIENCE)

    def wait_for_one(self) -> None:
        """Wait until somebody is here."""
        assert self._reached.wait(PATIENCE)

    def open(self) -> None:
        """Let him go on, and all who come later."""
        self._is_open.set()


@contextmanager
def bound(database: TestDatabase) -> Iterator[DBOS]:
    """Another application on the same database, which executes nothing."""
    other = DBOS(name="shop").bind(database.make_engine())
    yield other
    other._unbind()


def locked(session: Session, workflow_id: str) -> None:
    session.execute(select(WorkflowStatus).where(WorkflowStatus.workflow_id == workflow_id).with_for_update())


def is_waiting_for_a_lock(database: TestDatabase) -> bool:
    """Whether some backend of this database waits for another one."""
    with Session(database.make_engine()) as session:
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(session.scalar(waiting))


def status_of(database: TestDatabase, workflow_id: str) -> WorkflowState:
    with Session(database.make_engine()) as session:
        return WorkflowState(session.get_one(WorkflowStatus, workflow_id).status)


def steal(database: TestDatabase, workflow_id: str) -> None:
    """Give a workflow to another owner, as a take-over does: the row is locked first."""
    with Session(database.make_engine()) as session, session.begin():
        locked(session, workflow_id)
        session.execute(
            update(WorkflowStatus)
            .where(WorkflowStatus.workflow_id == workflow_id)
            .values(executor_id="thief", owner_token="token of the thief")
        )
