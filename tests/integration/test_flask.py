"""A real Flask application with Flask-SQLAlchemy: `db.session` deep in a repository is the step's own session."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, Session, mapped_column

from dbos_orm import DBOS, WorkflowState
from dbos_orm.errors import ConfigurationError
from tests.databases import TestDatabase
from tests.integration.shop import SOON, Base, Interruption, names_of_items
from tests.processes import PATIENCE, eventually


@dataclass
class Web:
    """An application, its database, and its workflows."""

    app: flask.Flask
    db: SQLAlchemy
    dbos: DBOS
    order: Any
    note: Any
    fails: bool = False


def repository_add(db: SQLAlchemy, name: str) -> None:
    """As deep as one likes, and no session among the parameters."""
    db.session.add(db.Model.metadata.info["item"](name=name))


def make_web(database: TestDatabase) -> Web:
    app = flask.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = database.url
    db = SQLAlchemy(app)

    class Item(db.Model):  # type: ignore[name-defined, misc]
        __tablename__ = "item"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(unique=True)

    db.Model.metadata.info["item"] = Item
    dbos = DBOS(db.session, name="shop", run_context=app.app_context, config=SOON)
    web = Web(app, db, dbos, None, None)

    @dbos.transaction(name="store")
    def store(session: Session, name: str) -> bool:
        repository_add(db, name)
        return db.session() is session

    @dbos.workflow(name="order")
    def order(name: str) -> bool:
        is_same = store(name)
        if web.fails:
            raise Interruption
        return is_same and store(f"{name} again")

    @dbos.step(name="note", timeout=PATIENCE)
    def note() -> str:
        return flask.current_app.name

    @dbos.workflow(name="notes")
    def notes() -> str:
        return note()

    @app.post("/orders/<name>")
    def place(name: str) -> dict[str, Any]:
        return {"same": order(name)}

    web.order, web.note = order, notes
    return web


@pytest.fixture
def web(postgresql_database: TestDatabase) -> Iterator[Web]:
    engine = postgresql_database.make_engine()
    Base.metadata.create_all(engine)
    made = make_web(postgresql_database)
    with made.dbos.launch():
        yield made
    with made.app.app_context():
        made.db.engine.dispose()


def test_what_a_repository_adds_to_db_session_commits_with_the_step(
    web: Web, postgresql_database: TestDatabase
) -> None:
    response = web.app.test_client().post("/orders/tea")
    assert response.get_json() == {"same": True}
    assert names_of_items(postgresql_database) == ["tea", "tea again"]


def test_a_background_run_is_in_an_application_context(web: Web, postgresql_database: TestDatabase) -> None:
    assert web.order.start("milk").result(PATIENCE) is True
    assert names_of_items(postgresql_database) == ["milk", "milk again"]


def test_a_step_on_a_thread_of_its_own_is_in_an_application_context(web: Web) -> None:
    assert web.note.start().result(PATIENCE) == "shop"
    with web.app.app_context():
        assert web.note() == "shop"


def test_submitted_transactions_have_a_session_and_a_context_each(web: Web, postgresql_database: TestDatabase) -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE)

    @web.dbos.transaction
    def store(session: Session, name: str) -> bool:
        meeting.wait()
        repository_add(web.db, name)
        return web.db.session() is session

    @web.dbos.workflow
    def both() -> list[bool]:
        futures = [store.submit("tea"), store.submit("milk")]
        return [future.result() for future in futures]

    assert both.start().result(PATIENCE) == [True, True]
    assert names_of_items(postgresql_database) == ["milk", "tea"]


def test_a_transaction_that_is_rolled_back_leaves_nothing_in_db_session(
    web: Web, postgresql_database: TestDatabase
) -> None:
    @web.dbos.transaction
    def fail(session: Session, name: str) -> None:
        repository_add(web.db, name)
        session.flush()
        raise ValueError(name)

    @web.dbos.workflow
    def failing() -> str:
        try:
            fail("tea")
        except ValueError:
            repository_add(web.db, "not committed either")
        return "done"

    assert failing.start().result(PATIENCE) == "done"
    assert names_of_items(postgresql_database) == []


def test_an_interrupted_run_is_continued_in_a_context_and_stores_once(
    web: Web, postgresql_database: TestDatabase
) -> None:
    web.fails = True
    with web.app.app_context(), pytest.raises(Interruption):
        web.order.options(workflow_id="w")("tea")
    assert names_of_items(postgresql_database) == ["tea"]
    web.fails = False
    assert web.dbos.handle("w").result(PATIENCE) is True
    assert names_of_items(postgresql_database) == ["tea", "tea again"]


def test_the_sessions_of_requests_stay_their_own(web: Web, postgresql_database: TestDatabase) -> None:
    with web.app.app_context():
        repository_add(web.db, "mine")
        before = web.db.session()
        assert web.order("tea") is True
        assert web.db.session() is before
        assert len(before.new) == 1
        web.db.session.rollback()
    assert names_of_items(postgresql_database) == ["tea", "tea again"]


def test_a_context_that_cannot_be_entered_hands_the_run_over(
    web: Web, postgresql_database: TestDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    surroundings = web.dbos._runtime.application.surroundings
    attempts: list[int] = []

    def broken() -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise RuntimeError("no application yet")
        return web.app.app_context()

    surroundings.make = broken
    with caplog.at_level(logging.ERROR, "dbos_orm"):
        handle = web.order.options(workflow_id="w").start("tea")
        assert handle.result(PATIENCE) is True
    assert len(attempts) == 3
    assert "run_context cannot be entered; workflow 'w' is handed over" in caplog.text
    assert names_of_items(postgresql_database) == ["tea", "tea again"]


def test_without_a_context_the_bind_says_how_to_give_one(postgresql_database: TestDatabase) -> None:
    made = make_web(postgresql_database)
    dbos = DBOS(made.db.session, name="other")
    with pytest.raises(ConfigurationError, match=r"run_context=app\.app_context"):
        dbos.launch()
    with made.app.app_context():
        dbos.bind(made.db.session)
        assert dbos._runtime.bound("test").engine is made.db.engine
        made.db.engine.dispose()


def test_a_context_that_cannot_be_left_changes_nothing(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __enter__(self) -> None:
            self.context = web.app.app_context()
            self.context.push()

        def __exit__(self, *_: object) -> None:
            self.context.pop()
            raise RuntimeError("teardown")

    web.dbos._runtime.application.surroundings.make = Broken
    handle = web.order.start("tea")
    assert handle.result(PATIENCE) is True
    eventually(lambda: "run_context cannot be left" in caplog.text)
    assert handle.status() is WorkflowState.SUCCESS
