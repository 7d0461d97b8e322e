"""What an application is bound to stays the user's: engines, makers of sessions, and the caller's own Session."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, event, inspect
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dbos_orm import DBOS
from tests.databases import TestDatabase
from tests.integration.shop import SOON, Base, Item, launched, names_of_items, reading
from tests.processes import PATIENCE


class ShopSession(Session):
    """A Session of the user's own."""


def makers(engine: Engine) -> dict[str, Any]:
    return {
        "sessionmaker": sessionmaker(engine, class_=ShopSession),
        "scoped_session": scoped_session(sessionmaker(engine, class_=ShopSession)),
    }


@pytest.mark.parametrize("kind", ["sessionmaker", "scoped_session"])
def test_sessions_come_from_the_maker_that_was_bound(database: TestDatabase, kind: str) -> None:
    engine = database.make_engine()
    Base.metadata.create_all(engine)
    with DBOS(makers(engine)[kind], name="shop", config=SOON) as dbos:

        @dbos.transaction
        def add(session: ShopSession, name: str) -> str:
            session.add(Item(name=name))
            return type(session).__name__

        @dbos.workflow
        def work() -> str:
            return add("tea")

        assert work() == "ShopSession"
    assert names_of_items(database) == ["tea"]


def test_a_scoped_session_is_lent_the_session_of_the_transaction(database: TestDatabase) -> None:
    engine = database.make_engine()
    Base.metadata.create_all(engine)
    registry = scoped_session(sessionmaker(engine))
    with DBOS(registry, name="shop", config=SOON) as dbos:

        @dbos.transaction
        def add(session: Session) -> bool:
            registry.add(Item(name="tea"))
            return registry() is session

        @dbos.workflow
        def work() -> bool:
            return add()

        before = registry()
        assert work()
        assert registry() is before
        registry.remove()
    assert names_of_items(database) == ["tea"]


def test_the_callers_session_is_never_touched(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.transaction
    def find(session: Session, number: int) -> str:
        return session.get_one(Item, number).name

    @dbos.workflow
    def work(number: int) -> str:
        return find(number)

    @dbos.transaction
    def add(session: Session, name: str) -> int:
        session.add(item := Item(name=name))
        session.flush()
        return item.id

    number = add("tea")
    with reading(database) as mine:
        item = mine.get_one(Item, number)
        item.name = "changed"
        mine.add(unsaved := Item(name="milk"))
        touched: list[str] = []
        for name in ("after_begin", "after_flush", "after_commit", "after_soft_rollback"):
            event.listen(mine, name, lambda *_, name=name: touched.append(name))
        transaction = mine.get_transaction()
        assert work(number) == "tea"
        assert work.start(number).result(PATIENCE) == "tea"
        assert find(number) == "tea"
        assert find.within(mine, number) == "changed"
        assert touched == []
        assert mine.get_transaction() is transaction
        assert item in mine.dirty
        assert unsaved in mine.new
        assert not inspect(item).expired
        mine.rollback()


def test_the_users_engine_gets_no_listeners(database: TestDatabase) -> None:
    engine = database.make_engine()
    before = listeners_of(engine)
    with launched(database, engine=engine) as dbos:

        @dbos.transaction
        def add(session: Session) -> None:
            session.add(Item(name="tea"))

        @dbos.workflow
        def work() -> None:
            add()

        work()
        assert listeners_of(engine) == before
    assert listeners_of(engine) == before


def listeners_of(engine: Engine) -> dict[str, int]:
    found = {}
    for target in (engine, engine.pool, engine.dialect):
        for name in dir(target.dispatch):
            listeners: Any = getattr(target.dispatch, name, None)
            if not name.startswith("_") and hasattr(listeners, "__len__"):
                found[f"{type(target).__name__}.{name}"] = len(listeners)
    return found
