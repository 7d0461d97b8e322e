"""Whose an error is that leaves a transactional step: the function's own, or the database's."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS
from dbos_orm._dialects import Dialect
from dbos_orm._drivers import sessions
from dbos_orm._flows.effects import WriteResult
from dbos_orm._store.entries import StepEntry
from dbos_orm.models import StepOutput
from tests.databases import TestDatabase
from tests.integration.shop import Item, count_of, launched, launched_async, names_of_items

OWN_ERRORS = [
    # What other systems raise may look like what a driver raises when the database is away or busy.
    ConnectionRefusedError("the mail server is away"),
    FileNotFoundError("no such template"),
    RuntimeError("the shop is closed"),
    ValueError("the account is locked"),
    TimeoutError("the printer is busy"),
]


@pytest.fixture(params=OWN_ERRORS, ids=lambda error: type(error).__name__)
def own_error(request: pytest.FixtureRequest) -> Exception:
    error: Exception = request.param
    return error


@pytest.mark.parametrize("durable", [True, False], ids=["in a workflow", "outside"])
def test_an_error_of_the_function_is_its_outcome_at_once(dbos: DBOS, own_error: Exception, durable: bool) -> None:
    calls = []

    @dbos.transaction
    def fail(session: Session) -> None:
        calls.append(session.scalar(text("SELECT 1")))
        raise own_error

    @dbos.workflow
    def workflow() -> None:
        fail()

    with pytest.raises(type(own_error)):
        workflow() if durable else fail()
    assert calls == [1]


async def test_an_error_of_the_coroutine_is_its_outcome_at_once(async_dbos: AsyncDBOS, own_error: Exception) -> None:
    calls = []

    @async_dbos.transaction
    async def fail(session: AsyncSession) -> None:
        calls.append(await session.scalar(text("SELECT 1")))
        raise own_error

    @async_dbos.workflow
    async def workflow() -> None:
        await fail()

    with pytest.raises(type(own_error)):
        await workflow()
    assert calls == [1]


def test_a_value_whose_rows_were_rolled_back_is_never_recorded(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, refused = sessions.record, iter(range(3))

    def refusing(session: Session, dialect: Dialect, entry: StepEntry) -> WriteResult:
        return record(session, dialect, entry) if next(refused, None) is None else WriteResult.REFUSED

    monkeypatch.setattr(sessions, "record", refusing)
    with launched(database) as dbos:

        @dbos.transaction(max_attempts=2)
        def add(session: Session) -> str:
            session.add(Item(name="added"))
            return "added"

        @dbos.workflow
        def workflow() -> str:
            return add()

        assert workflow() == "added"
    assert names_of_items(database) == ["added"]


class AppError(Exception):
    """What a program makes of an error of its database."""


def test_an_error_made_of_a_lost_connection_is_not_the_steps(postgresql_database: TestDatabase) -> None:
    attempts = []
    with launched(postgresql_database) as dbos:

        @dbos.transaction
        def work(session: Session) -> str:
            attempts.append(dbos.current.attempt)
            if len(attempts) == 1:
                try:
                    session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
                except DBAPIError as error:
                    raise AppError("the database is in trouble") from error
            return "done"

        @dbos.workflow
        def workflow() -> str:
            return work()

        assert workflow() == "done"
    assert len(attempts) == 2
    assert count_of(postgresql_database, StepOutput, error=None) == 1


async def test_an_error_that_a_coroutine_makes_of_a_lost_connection_is_not_the_steps(
    postgresql_database: TestDatabase,
) -> None:
    attempts = []
    async with launched_async(postgresql_database) as dbos:

        @dbos.transaction
        async def work(session: AsyncSession) -> str:
            attempts.append(dbos.current.attempt)
            if len(attempts) == 1:
                try:
                    await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
                except DBAPIError as error:
                    raise AppError("the database is in trouble") from error
            return "done"

        @dbos.workflow
        async def workflow() -> str:
            return await work()

        assert await workflow() == "done"
    assert len(attempts) == 2
