"""Starting workflows in the caller's own transaction: the commit is the start, a rollback leaves nothing."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from dbos_orm import DBOS, WorkflowState
from dbos_orm.errors import (
    ConflictingWorkflowError,
    NotBoundError,
    NotCommittedError,
    SessionMisuseError,
    WorkflowExistsError,
)
from dbos_orm.models import WorkflowStatus
from tests.databases import TestDatabase
from tests.integration.scopes import SCOPES, UNHURRIED, connection_of, session_of
from tests.integration.shop import Item, Statements, count_of, launched
from tests.processes import PATIENCE


@SCOPES
def test_the_commit_is_the_start_and_is_heard_at_once(database: TestDatabase, scope_of: Any) -> None:
    with launched(database, config=UNHURRIED) as dbos:

        @dbos.workflow
        def double(number: int) -> int:
            return 2 * number

        with scope_of(database) as scope:
            handle = double.options(workflow_id="w", attributes={"tenant": 7}).start_in(scope, 21)
            assert (handle.workflow_id, handle.created) == ("w", True)
            assert count_of(database, WorkflowStatus) == 0
            scope.commit()
            assert handle.result(timeout=PATIENCE) == 42
            assert handle.status() is WorkflowState.SUCCESS
            assert handle.describe().attributes == {"tenant": 7}


@SCOPES
def test_a_rollback_leaves_nothing(dbos: DBOS, database: TestDatabase, scope_of: Any) -> None:
    @dbos.workflow
    def work() -> None: ...

    with scope_of(database) as scope:
        handle = work.start_in(scope)
        scope.rollback()
        with pytest.raises(NotCommittedError) as caught:
            handle.result(timeout=PATIENCE)
        assert caught.value.workflow_id == handle.workflow_id
        assert count_of(database, WorkflowStatus) == 0


@SCOPES
def test_reading_before_the_commit_is_refused(dbos: DBOS, database: TestDatabase, scope_of: Any) -> None:
    @dbos.workflow
    def work() -> int:
        return 1

    with scope_of(database) as scope:
        handle = work.start_in(scope)
        for read in (handle.result, handle.status, handle.describe, handle.steps, handle.cancel):
            with pytest.raises(NotCommittedError):
                read()
        scope.commit()
        assert handle.result(timeout=PATIENCE) == 1


@SCOPES
def test_a_savepoint_takes_its_starts_with_it(dbos: DBOS, database: TestDatabase, scope_of: Any) -> None:
    @dbos.workflow
    def work(number: int) -> int:
        return number

    with scope_of(database) as scope:
        first = work.start_in(scope, 1)
        savepoint = scope.begin_nested()
        second = work.start_in(scope, 2)
        savepoint.rollback()
        with scope.begin_nested():
            third = work.start_in(scope, 3)
        scope.commit()
    assert (first.result(timeout=PATIENCE), third.result(timeout=PATIENCE)) == (1, 3)
    with pytest.raises(NotCommittedError):
        second.status()


def test_rows_and_workflow_commit_together(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def work(number: int) -> int:
        return number

    with Session(database.make_engine()) as session, session.begin():
        session.add(item := Item(name="tea"))
        session.flush()
        handle = work.start_in(session, item.id)
        assert not session.new
        assert not any(isinstance(row, WorkflowStatus) for row in session.identity_map.values())
        number = item.id
    assert handle.result(timeout=PATIENCE) == number


def test_a_start_is_one_statement_and_flushes_nothing(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def work() -> None: ...

    engine = database.make_engine()
    sent = Statements(engine)
    with Session(engine) as session:
        session.add(Item(name="tea"))
        work.start_in(session)
        sent.clear()
        work.start_in(session)
        assert sent.kinds == ["INSERT workflow"]
        assert session.new
        session.rollback()


def test_its_row_relates_and_leaves_with_its_savepoint(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def work() -> None: ...

    with Session(database.make_engine()) as session:
        savepoint = session.begin_nested()
        handle = work.start_in(session)
        row = handle.row
        assert (row.workflow_id, row.status, row in session) == (handle.workflow_id, WorkflowState.ENQUEUED, True)
        assert handle.row is row
        savepoint.rollback()
        assert row not in session
        with session.begin_nested():
            kept = work.start_in(session).row
        session.rollback()
        assert kept not in session


def test_the_row_of_what_was_rolled_back_was_never_committed(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def work() -> None: ...

    with Session(database.make_engine()) as session:
        handle = work.start_in(session)
        session.rollback()
        with pytest.raises(NotCommittedError) as caught:
            _ = handle.row
        assert (caught.value.operation, caught.value.workflow_id) == ("row", handle.workflow_id)


def test_a_session_of_long_life_gathers_nothing(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def work() -> None: ...

    with Session(database.make_engine()) as session:
        listeners = []
        for _ in range(3):
            row = weakref.ref(work.start_in(session).row)
            session.rollback()
            assert row() is None
            row = weakref.ref(work.start_in(session).row)
            session.commit()
            assert row() is None
            names = ("after_commit", "after_soft_rollback")
            listeners.append([len(list(getattr(session.dispatch, name))) for name in names])
        assert listeners == [[1, 1]] * 3


def test_a_connection_has_no_row(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def work() -> None: ...

    with connection_of(database) as connection, pytest.raises(SessionMisuseError, match="Connection"):
        _ = work.start_in(connection).row


def test_the_callers_session_is_left_as_it_is(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def work() -> None: ...

    events: list[str] = []
    with Session(database.make_engine(), expire_on_commit=False) as session:
        for name in ("before_commit", "after_rollback", "before_flush"):
            event.listen(session, name, lambda *_, name=name: events.append(name))
        session.add(item := Item(name="tea"))
        work.start_in(session)
        assert events == []
        assert session.in_transaction()
        session.commit()
        assert item in session
        assert "before_commit" in events


def test_two_phases(postgresql_database: TestDatabase) -> None:
    with launched(postgresql_database, config=UNHURRIED) as dbos:

        @dbos.workflow
        def work(number: int) -> int:
            return number

        with Session(postgresql_database.make_engine(), twophase=True) as session:
            handle = work.start_in(session, 5)
            session.prepare()
            with pytest.raises(NotCommittedError):
                handle.status()
            session.commit()
            assert handle.result(timeout=PATIENCE) == 5
        with postgresql_database.make_engine().connect() as connection:
            transaction = connection.begin_twophase()
            handle = work.start_in(connection, 6)
            transaction.prepare()
            transaction.commit()
            assert handle.result(timeout=PATIENCE) == 6


def test_a_session_that_joined_a_transaction_commits_with_it(database: TestDatabase) -> None:
    with launched(database, config=UNHURRIED) as dbos:

        @dbos.workflow
        def work(number: int) -> int:
            return number

        with database.make_engine().connect() as connection:
            transaction = connection.begin()
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                handle = work.start_in(session, 5)
                session.commit()
            with pytest.raises(NotCommittedError):
                handle.status()
            transaction.commit()
            assert handle.result(timeout=PATIENCE) == 5


def test_an_application_without_a_database_starts(database: TestDatabase) -> None:
    unbound = DBOS(name="shop", config=UNHURRIED)

    @unbound.workflow(name="work")
    def work(number: int) -> int:
        return number

    with session_of(database) as session:
        handle = work.start_in(session, 5)
        session.commit()
    with pytest.raises(NotBoundError):
        handle.result()
    with unbound.launch(database.make_engine()):
        assert handle.result(timeout=PATIENCE) == 5


def test_a_known_id_is_that_workflow(dbos: DBOS, database: TestDatabase, caplog: pytest.LogCaptureFixture) -> None:
    @dbos.workflow
    def work(number: int) -> int:
        return number

    @dbos.workflow
    def other() -> None: ...

    assert work.options(workflow_id="w")(1) == 1
    with session_of(database) as session:
        handle = work.options(workflow_id="w").start_in(session, 2)
        assert (handle.created, handle.result()) == (False, 1)
        assert "'w' exists with other arguments" in caplog.text
        with pytest.raises(WorkflowExistsError):
            work.options(workflow_id="w", on_existing="raise").start_in(session, 2)
        with pytest.raises(ConflictingWorkflowError):
            other.options(workflow_id="w").start_in(session)
        session.commit()
    assert handle.result() == 1
