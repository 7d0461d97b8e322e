"""Starts that stay where they wait: an application that executes nothing, and what is stored of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from dbos_orm import DBOS, WorkflowStatus, models
from tests.databases import TestDatabase
from tests.integration.shop import reading


@contextmanager
def bound(database: TestDatabase, name: str = "shop") -> Iterator[DBOS]:
    """An application that starts and does not execute."""
    dbos = DBOS(name=name).bind(database.make_engine())
    try:
        yield dbos
    finally:
        dbos.shutdown()


def row_of(database: TestDatabase, workflow_id: str) -> WorkflowStatus:
    """The committed row of a workflow."""
    with reading(database) as session:
        return session.get_one(WorkflowStatus, workflow_id)


def make_queue(
    database: TestDatabase, name: str, *, application: str = "shop", partitioned: bool = False, paused: bool = False
) -> None:
    """Store a queue, as another process does."""
    with Session(database.make_engine()) as session, session.begin():
        session.add(models.Queue(application=application, name=name, partitioned=partitioned, paused=paused))
