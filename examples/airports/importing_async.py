"""The same import with asyncio: the same names and IDs, so that either finishes what the other began."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncSession

from dbos_orm import AsyncDBOS, AsyncWorkflowHandle
from examples.airports import data_set, importing
from examples.airports.facts import Facts, find_facts
from examples.airports.terminal import Report

dbos = AsyncDBOS(name="airports")


@dbos.transaction
async def create_tables(session: AsyncSession) -> None:
    await session.run_sync(importing.create_tables.within)


@dbos.transaction
async def import_countries(session: AsyncSession, version: str) -> None:
    await session.run_sync(importing.import_countries.within, version)


@dbos.transaction
async def import_batch(session: AsyncSession, version: str, number: int) -> int:
    return await session.run_sync(importing.import_batch.within, version, number)


@dbos.workflow(version=importing.import_airports.version)
async def import_airports(version: str) -> int:
    await import_countries(version)
    batches = range(1, data_set.batch_count(version) + 1)
    return sum([await import_batch(version, number) for number in batches])


@dbos.transaction
async def facts(session: AsyncSession) -> Facts:
    return await session.run_sync(find_facts)


async def run(url: str, report: Report) -> None:
    """Import the installed data set into a database, or finish what was begun, or find it done."""
    async with dbos.launch(url, migrate=True):
        await create_tables()
        workflow_id = f"airports-{data_set.VERSION}"
        handle = await import_airports.options(workflow_id=workflow_id).start(data_set.VERSION)
        done = len(await handle.steps())
        report.begin(url, await handle.status(), created=handle.created, done=done)
        report.end(await wait_for(handle, report))
        report.tell(await facts())


async def wait_for(handle: AsyncWorkflowHandle[int], report: Report) -> int:
    """Show how far the workflow is until it has ended."""
    with report.progress() as show:
        while (await handle.status()).is_live:
            show(len(await handle.steps()))
            with suppress(TimeoutError):
                return await handle.result(timeout=0.1)
    return await handle.result()
