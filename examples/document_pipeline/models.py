"""Documents, the sections that they were split into, and the words that are frequent in them."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dbos_orm import WorkflowStatus


class Base(DeclarativeBase):
    pass


class Document(Base):
    """A text file, and the workflow that indexes it."""

    __tablename__ = "document"

    id: Mapped[int] = mapped_column(primary_key=True)
    folder: Mapped[str] = mapped_column(index=True)
    path: Mapped[str]
    """Within the folder."""
    lines: Mapped[int | None]
    """None until it is indexed."""
    indexing_id: Mapped[str | None] = mapped_column(ForeignKey(WorkflowStatus.workflow_id))

    indexing: Mapped[WorkflowStatus | None] = relationship(WorkflowStatus)
    sections: Mapped[list[Section]] = relationship(back_populates="document")
    terms: Mapped[list[Term]] = relationship(back_populates="document")


class Section(Base):
    """A function or a class of a module, or what is under a heading of another text."""

    __tablename__ = "section"

    document_id: Mapped[int] = mapped_column(ForeignKey(Document.id), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    words: Mapped[int]

    document: Mapped[Document] = relationship(back_populates="sections")


class Term(Base):
    """A word that is frequent in a document."""

    __tablename__ = "term"

    document_id: Mapped[int] = mapped_column(ForeignKey(Document.id), primary_key=True)
    word: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]

    document: Mapped[Document] = relationship(back_populates="terms")
