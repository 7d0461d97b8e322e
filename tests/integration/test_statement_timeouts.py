"""How long a statement of a transaction may take, where the database can tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg2.errors import QueryCanceled
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm.models import WorkflowStatus
from tests.conftest import MakeDatabase
from tests.databases import POSTGRESQL, SQLITE, TestDatabase
from tests.integration.pairs import make_pair
from tests.integration.shop import Item, launched, launched_async, names_of_items

LIMIT = 0.1
LONG = text("SELECT pg_sleep(30)")


def test_a_statement_that_takes_too_long_is_cancelled_and_that_is_the_steps_error(
    postgresql_database: TestDatabase,
) -> None:
    calls = []
    with launched(postgresql_database) as dbos:

        @dbos.transaction(statement_timeout=LIMIT)
        def wait(session: Session) -> None:
            calls.append(1)
            session.add(Item(name="tea"))
            session.flush()
            session.execute(LONG)

        @dbos.workflow
        def work() -> str:
            try:
                wait()
            except DBAPIError as error:
                return str(error)
            return "in time"

        assert "statement timeout" in work.options(workflow_id="w")()
        (step,) = dbos.handle("w").steps()
        assert "statement timeout" in str(step.error)
    assert calls == [1]
    assert names_of_items(postgresql_database) == []


def test_outside_a_workflow_the_callers_get_the_drivers_error(postgresql_database: TestDatabase) -> None:
    with launched(postgresql_database) as dbos:

        @dbos.transaction(statement_timeout=LIMIT)
        def wait(session: Session) -> None:
            session.execute(LONG)

        with pytest.raises(OperationalError) as caught:
            wait()
        assert isinstance(caught.value.orig, QueryCanceled)


async def test_a_statement_of_a_coroutine_is_cancelled_too(postgresql_database: TestDatabase) -> None:
    async with launched_async(postgresql_database) as dbos:

        @dbos.transaction(statement_timeout=LIMIT)
        async def wait(session: AsyncSession) -> None:
            await session.execute(LONG)

        @dbos.workflow
        async def work() -> str:
            try:
                await wait()
            except DBAPIError as error:
                return str(error)
            return "in time"

        assert "statement timeout" in await work()


def test_a_statement_on_a_second_database_is_cancelled_too(make_database: MakeDatabase) -> None:
    pair = make_pair(make_database, SQLITE, POSTGRESQL)
    with launched(pair.main) as dbos:

        @dbos.transaction(statement_timeout=LIMIT, sessionmaker=pair.maker())
        def wait(session: Session) -> None:
            session.execute(LONG)

        @dbos.workflow
        def work() -> str:
            try:
                wait()
            except DBAPIError as error:
                return str(error)
            return "in time"

        assert "statement timeout" in work()


def test_the_limit_holds_behind_a_rollback_of_the_function_and_for_no_other_transaction(
    postgresql_database: TestDatabase,
) -> None:
    def limit(session: Session) -> str:
        return str(session.scalar(text("SHOW statement_timeout")))

    with launched(postgresql_database) as dbos:

        @dbos.transaction(statement_timeout=2)
        def limited(session: Session) -> list[str]:
            first = limit(session)
            with session.begin_nested():
                inside = limit(session)
            session.rollback()
            return [first, inside, limit(session)]

        unlimited = dbos.transaction(name="unlimited")(limit)

        @dbos.workflow
        def work() -> list[str]:
            return [unlimited(), *limited(), unlimited()]

        assert work() == ["0", "2s", "2s", "2s", "0"]


def test_a_checkpoint_that_had_to_wait_is_tried_again_and_is_no_error_of_the_step(
    postgresql_database: TestDatabase,
) -> None:
    calls: list[Callable[[], None]] = []
    with launched(postgresql_database) as dbos:

        @dbos.transaction(statement_timeout=LIMIT)
        def add(session: Session) -> str:
            session.add(Item(name="tea"))
            if calls:
                calls[0]()
            else:
                calls.append(lock_run(postgresql_database))
            return "added"

        @dbos.workflow
        def work() -> str:
            return add()

        assert work.options(workflow_id="w")() == "added"
    assert names_of_items(postgresql_database) == ["tea"]


def lock_run(database: TestDatabase) -> Callable[[], None]:
    """Hold the status row as somebody does who is about to take the run over; gives what lets it go."""
    session = Session(database.make_engine())
    session.execute(select(WorkflowStatus).where(WorkflowStatus.workflow_id == "w").with_for_update())
    return session.close


def test_without_such_a_limit_in_the_database_it_is_ignored(sqlite_database: TestDatabase) -> None:
    with launched(sqlite_database) as dbos:

        @dbos.transaction(statement_timeout=LIMIT)
        def add(session: Session) -> str:
            session.add(Item(name="tea"))
            return "added"

        @dbos.workflow
        def work() -> str:
            return add()

        assert work.options(workflow_id="w")() == "added"
        assert [step.output for step in dbos.handle("w").steps()] == ["added"]
