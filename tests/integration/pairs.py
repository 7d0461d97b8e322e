"""Two databases: one with the workflows, and another one that only has rows of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from dbos_orm import schema
from dbos_orm.models import StepOutput, TransactionOutput
from tests.conftest import MakeDatabase
from tests.databases import POSTGRESQL, SQLITE, Backend, TestDatabase
from tests.integration.shop import Base, reading

PAIRS: tuple[tuple[Backend, Backend], ...] = (
    (POSTGRESQL, POSTGRESQL),
    (SQLITE, SQLITE),
    (SQLITE, POSTGRESQL),
    (POSTGRESQL, SQLITE),
)


@dataclass
class Pair:
    """``main`` has the workflows, ``other`` has items and the one table for transactions."""

    main: TestDatabase
    other: TestDatabase

    def maker(self, **options: Any) -> sessionmaker[Session]:
        """A maker of sessions on the other database."""
        return sessionmaker(self.other.make_engine(**options))

    def async_maker(self, **options: Any) -> async_sessionmaker[AsyncSession]:
        """``maker`` for coroutines."""
        return async_sessionmaker(self.other.make_async_engine(**options))

    def outputs(self) -> list[TransactionOutput]:
        """What is recorded in the other database."""
        with reading(self.other) as session:
            return list(session.scalars(select(TransactionOutput).order_by(TransactionOutput.step_id)))


def make_pair(make_database: MakeDatabase, main: Backend, other: Backend) -> Pair:
    """Two databases, of which one is migrated and the other one has the one table and items."""
    pair = Pair(make_database(main), make_database(other, schema=False))
    engine = pair.other.make_engine()
    with engine.begin() as connection:
        schema.create_transaction_output(connection)
    Base.metadata.create_all(engine)
    return pair


def forget_history(database: TestDatabase) -> None:
    """Take the record out of the main database, as if the process had died before it was written."""
    with Session(database.make_engine()) as session, session.begin():
        session.query(StepOutput).delete()
