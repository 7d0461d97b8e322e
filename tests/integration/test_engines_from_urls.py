"""An engine that the library made from a URL is closed by it; one of the user's is left as it is."""

from __future__ import annotations

from sqlalchemy import Engine, QueuePool, event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS
from tests.databases import TestDatabase


def idle_connections(engine: Engine) -> int:
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedin()


def closed_connections(engine: Engine) -> list[object]:
    """A list to which every connection is added when it is closed."""
    closed: list[object] = []
    event.listen(engine.pool, "close", lambda connection, _: closed.append(connection))
    return closed


def test_shutdown_closes_the_engine_of_a_url(database: TestDatabase) -> None:
    dbos = DBOS(name="urls")

    @dbos.transaction
    def ask(session: Session) -> int:
        return int(session.execute(text("SELECT 1")).scalar_one())

    with dbos.launch(database.url):
        ask()
        assert dbos._resolved is not None
        idle, closed = idle_connections(dbos._resolved.engine), closed_connections(dbos._resolved.engine)
        assert idle > 0
    assert len(closed) == idle


async def test_an_asynchronous_shutdown_closes_the_engine_of_a_url(database: TestDatabase) -> None:
    dbos = AsyncDBOS(name="urls")

    @dbos.transaction
    async def ask(session: AsyncSession) -> int:
        return int((await session.execute(text("SELECT 1"))).scalar_one())

    async with dbos.launch(database.async_url):
        await ask()
        assert dbos._resolved is not None
        idle, closed = idle_connections(dbos._resolved.engine), closed_connections(dbos._resolved.engine)
        assert idle > 0
    assert len(closed) == idle


async def test_an_asynchronous_shutdown_leaves_an_engine_of_the_user_open(database: TestDatabase) -> None:
    engine = database.make_async_engine()
    dbos = AsyncDBOS(engine, name="urls")

    @dbos.transaction
    async def ask(session: AsyncSession) -> int:
        return int((await session.execute(text("SELECT 1"))).scalar_one())

    async with dbos.launch():
        await ask()
        idle, closed = idle_connections(engine.sync_engine), closed_connections(engine.sync_engine)
    assert closed == []
    assert idle_connections(engine.sync_engine) == idle
