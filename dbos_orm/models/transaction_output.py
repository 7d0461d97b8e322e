"""The checkpoint of a transactional step whose rows live in another database than the workflow."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, MetaData, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dbos_orm.models._base import NAMING_CONVENTION, TYPES_OF_ANNOTATIONS
from dbos_orm.models._defaults import ServerInstant
from dbos_orm.models._types import Payload

__all__ = ["TransactionOutput", "transaction_metadata"]

transaction_metadata = MetaData(naming_convention=NAMING_CONVENTION)
"""The one table of a second database; the main database does not have it."""


class SecondDatabaseBase(DeclarativeBase):
    """Apart from ``Base``, so that creating the main schema does not create its table."""

    __table__: ClassVar[Table]
    metadata = transaction_metadata
    type_annotation_map = TYPES_OF_ANNOTATIONS


class TransactionOutput(SecondDatabaseBase):
    """One transactional step, recorded in the transaction of the user's rows, in their database."""

    __tablename__ = "dbos_transaction_output"

    workflow_id: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[str] = mapped_column(primary_key=True)
    """The workflow's: a rewound or restarted workflow does not find the rows of its earlier life."""
    scope: Mapped[str] = mapped_column(primary_key=True, server_default="")
    step_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    output: Mapped[str | None] = mapped_column(Payload)
    error: Mapped[str | None] = mapped_column(Payload)
    serializer: Mapped[str] = mapped_column(server_default="json")
    owner_token: Mapped[str]
    write_id: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None] = mapped_column(server_default=ServerInstant())

    def __repr__(self) -> str:
        return f"<TransactionOutput {self.workflow_id!r} {self.name!r}>"
