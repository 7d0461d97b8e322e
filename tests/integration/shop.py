"""A small application for the tests: its rows, its errors and values, and how it is launched."""

from __future__ import annotations

import enum
import logging
import re
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Engine, ForeignKey, event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbos_orm import DBOS, AsyncDBOS, Config
from dbos_orm._application import AnyDBOS
from tests.databases import TestDatabase
from tests.processes import PATIENCE


class Base(DeclarativeBase):
    """The user's own declarative base."""


class Item(Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("item.id"))


class Colour(enum.Enum):
    RED = "red"
    GREEN = ("green", 1)


@dataclass(frozen=True)
class Money:
    cents: int
    currency: str


class Line(NamedTuple):
    item: str
    price: Money


class OutOfStockError(Exception):
    """Its constructor does not take what ``args`` holds, as in many programs."""

    def __init__(self, item: str, *, left: int) -> None:
        super().__init__(f"no {item} left but {left}")
        self.item, self.left = item, left


class Interruption(BaseException):
    """Ends a run as the end of its process would: no outcome is recorded, and somebody continues it."""


class Held:
    """Holds the threads that come by until it is released; ``ended`` is what they did after that."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.began = threading.Event()
        self.ended: list[object] = []

    def hold(self) -> None:
        self.began.set()
        assert self.release.wait(PATIENCE)


SOON = Config(tick=0.05)
"""A tick that does not let a test wait for a take-over."""


@contextmanager
def launched(
    database: TestDatabase,
    *,
    engine: Engine | None = None,
    name: str = "shop",
    config: Config = SOON,
) -> Iterator[DBOS]:
    """An application that executes workflows on ``database``, whose tables exist."""
    engine = engine or database.make_engine()
    Base.metadata.create_all(engine)
    with DBOS(engine, name=name, config=config) as dbos:
        yield dbos


@asynccontextmanager
async def launched_async(
    database: TestDatabase,
    *,
    engine: AsyncEngine | None = None,
    name: str = "shop",
    config: Config = SOON,
) -> AsyncIterator[AsyncDBOS]:
    """``launched`` for coroutines."""
    engine = engine or database.make_async_engine()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncDBOS(engine, name=name, config=config) as dbos:
        yield dbos


def is_settled(dbos: AnyDBOS) -> bool:
    """Whether a launch hears from other processes, where they can tell it anything, and so sends nothing by itself."""
    hints = dbos._runtime.bound("test").hints
    return hints.telling is None or hints.is_listening


def reading(database: TestDatabase) -> Session:
    """A session of another program, which does not wait for who writes."""
    return Session(database.onlooker)


def names_of_items(database: TestDatabase) -> list[str]:
    """The items that are committed, as another program sees them."""
    with reading(database) as session:
        return list(session.scalars(select(Item.name).order_by(Item.name)))


def count_of(database: TestDatabase, model: type[Any], **columns: object) -> int:
    """How many committed rows of a model have these values."""
    with reading(database) as session:
        statement = select(func.count()).select_from(model).filter_by(**columns)
        return session.scalar(statement) or 0


class Statements:
    """What is sent over the connections of an engine, in order; of the library's own, also what goes by its cursor.

    ``boundaries``: also where SQLAlchemy begins and ends a transaction, which the driver does without a statement.
    """

    def __init__(self, engine: Engine, *, boundaries: bool = False) -> None:
        self.sent: list[str] = []
        event.listen(engine, "before_cursor_execute", self._note)
        if not boundaries:
            handler = _Noting(self.sent)
            _SQL_LOGGER.setLevel(logging.DEBUG)
            _SQL_LOGGER.addHandler(handler)
            weakref.finalize(self, _stop_noting, handler)
        for boundary in ("begin", "commit", "rollback") if boundaries else ():
            event.listen(engine, boundary, self._noting(boundary.upper()))

    def clear(self) -> None:
        self.sent.clear()

    @property
    def kinds(self) -> list[str]:
        """The first word and the table of each statement, without the tick's."""
        return [kind for kind in map(_kind, self.sent) if kind is not None]

    def _note(self, connection: object, cursor: object, statement: str, *_: object) -> None:
        self.sent.append(statement)

    def _noting(self, boundary: str) -> Any:
        def note(_: object) -> None:
            self.sent.append(boundary)

        return note


class _Noting(logging.Handler):
    """Notes what is logged; of a prepared statement its text whenever it is executed."""

    def __init__(self, sent: list[str]) -> None:
        super().__init__()
        self._sent = sent
        self._prepared: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        verb, _, rest = record.getMessage().partition(" ")
        name, _, text = rest.partition(" ")
        if verb == "PREPARE":
            self._prepared[name] = text.removeprefix("AS ")
        elif verb != "DEALLOCATE":
            self._sent.append(self._prepared[name] if verb == "EXECUTE" else record.getMessage())


_SQL_LOGGER = logging.getLogger("dbos_orm.sql")


def _stop_noting(handler: logging.Handler) -> None:
    _SQL_LOGGER.removeHandler(handler)
    if not _SQL_LOGGER.handlers:
        _SQL_LOGGER.setLevel(logging.NOTSET)


def stop_noting() -> None:
    """Have nothing noted any more: who noted may be alive for as long as its engine is."""
    for handler in [handler for handler in _SQL_LOGGER.handlers if isinstance(handler, _Noting)]:
        _stop_noting(handler)


_TABLES: Mapping[str, str] = {
    "dbos_step_output": "step",
    "dbos_step_attempt": "attempt",
    "dbos_workflow_status": "workflow",
    "dbos_transaction_output": "output",
    "item": "item",
}


def _kind(statement: str) -> str | None:
    """``INSERT step`` for a statement that inserts into dbos_step_output; None for one of the background's."""
    verb = statement.split(maxsplit=1)[0].upper()
    if "dbos_executor" in statement:
        return None
    if verb in ("BEGIN", "COMMIT", "ROLLBACK", "SET"):
        return verb
    if verb == "WITH":
        written = re.findall(r"\b(INSERT|UPDATE) (?:INTO )?(dbos_\w+)", statement)
        return " + ".join(f"{verb} {_TABLES[table]}" for verb, table in written) or "SELECT workflow"
    start = statement.index(_BEFORE_TABLE[verb])
    found = {statement.index(table, start): kind for table, kind in _TABLES.items() if table in statement[start:]}
    return f"{verb} {found[min(found)]}"


_BEFORE_TABLE = {"SELECT": "FROM ", "INSERT": "INSERT INTO ", "UPDATE": "UPDATE ", "DELETE": "FROM "}
