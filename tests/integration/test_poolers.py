"""Behind a pooler that gives each transaction another server process."""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from dbos_orm import AsyncDBOS
from dbos_orm._dialects import Fault
from dbos_orm.models import StepOutput, WorkflowStatus
from tests.databases import TestDatabase
from tests.integration.shop import Item, count_of, launched_async


class LostStatementError(Exception):
    """What asyncpg says when the second part of a statement met another server process than the first."""

    sqlstate = "26000"


async def test_asyncpg_keeps_its_server_process_once_a_pooler_was_noticed(postgresql_database: TestDatabase) -> None:
    async with launched_async(postgresql_database) as dbos:
        await work_on(dbos)
        dialect = dbos._runtime.bound("test").dialect
        before = dialect.begins_by_driver
        # Nothing was done, so that it is no outcome of anything.
        assert dialect.fault(DBAPIError("SELECT 1", {}, LostStatementError())) is Fault.CONFLICT
        assert (before, dialect.begins_by_driver) == (False, True)
        await work_on(dbos)
        assert count_of(postgresql_database, WorkflowStatus, status="SUCCESS") == 2 * 2 * 20
        assert count_of(postgresql_database, StepOutput, kind="transaction") == 2 * 20
        assert count_of(postgresql_database, Item) == 2 * 20


async def work_on(dbos: AsyncDBOS) -> None:
    """Workflows with every kind of write."""
    prefix = dbos._runtime.bound("test").dialect.begins_by_driver

    @dbos.transaction(name=f"add {prefix}")
    async def add(session: AsyncSession, number: int) -> int:
        session.add(Item(name=f"{prefix} {number}"))
        return number

    @dbos.workflow(name=f"child {prefix}")
    async def child(number: int) -> int:
        return await add(number)

    @dbos.workflow(name=f"work {prefix}")
    async def work(number: int) -> int:
        await dbos.now()
        return await (await child.start(number)).result()

    assert await asyncio.gather(*(work(number) for number in range(20))) == list(range(20))
