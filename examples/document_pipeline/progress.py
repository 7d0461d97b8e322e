"""How far it is: plain ORM queries over the documents, their workflows and the queue."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dbos_orm import WorkflowStatus
from dbos_orm.models import Queue
from examples.document_pipeline.models import Document


@dataclass(frozen=True)
class Progress:
    """How many documents there are, how many of them are indexed, and what the queue has under way."""

    documents: int
    indexed: int
    running: int
    waiting: int

    def __str__(self) -> str:
        return f"{self.indexed:,} of {self.documents:,} indexed, {self.running} running, {self.waiting:,} waiting"


def look(session: Session, folder: str) -> Progress:
    """The state of one folder."""
    mine = select(func.count()).select_from(Document).where(Document.folder == folder)
    ended = mine.join(Document.indexing).where(WorkflowStatus.is_terminal)
    queue = session.execute(
        select(Queue.running, Queue.depth).where(Queue.application == "documents", Queue.name == "documents")
    ).one()
    return Progress(session.scalar(mine) or 0, session.scalar(ended) or 0, queue.running, queue.depth)
