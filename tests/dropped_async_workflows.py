"""``dropped_workflows`` for coroutines."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from dbos_orm import AsyncDBOS
from dbos_orm.errors import SerializationError, StepTimeoutError, WorkflowTimeoutError
from tests.dropped_queues import FOR_EVER
from tests.dropped_workflows import RETRY, TIMEOUT, Interruption, Journal, conflict, posting


# A list of small functions is not a long function.
def register_async(dbos: AsyncDBOS, journal: Journal) -> Mapping[str, Any]:  # noqa: C901, PLR0915
    """``register`` for coroutines, with more: steps at the same time."""
    workflows: dict[str, Any] = {}

    def scenario(workflow: Any) -> None:
        workflows[workflow.name.rpartition(".")[2]] = workflow

    @dbos.step
    async def double(number: int) -> int:
        journal.note()
        return 2 * number

    @dbos.step
    def triple(number: int) -> int:
        journal.note()
        return 3 * number

    @dbos.step
    async def keep(values: list[Any]) -> list[Any]:
        journal.note()
        return values

    @dbos.step
    async def nap() -> None:
        journal.note()
        await dbos.sleep(0.001)

    @dbos.step
    async def fail(reason: str) -> str:
        journal.note()
        raise ValueError(reason)

    @dbos.step(retry=RETRY)
    async def succeed_at(attempt: int) -> int:
        if journal.note() < attempt:
            raise ValueError(f"attempt {attempt} is awaited")
        return attempt

    @dbos.step(timeout=0.01)
    async def be_late() -> None:
        journal.note()
        await dbos.sleep(FOR_EVER)

    @dbos.transaction
    async def post(session: AsyncSession, note: str) -> str:
        session.add(posting(note))
        return note

    @dbos.transaction
    async def post_and_fail(session: AsyncSession, note: str) -> str:
        session.add(posting(note))
        await session.flush()
        raise ValueError(note)

    @dbos.transaction
    async def post_and_return_a_lock(session: AsyncSession, note: str) -> object:
        session.add(posting(note))
        return threading.Lock()

    @dbos.transaction
    async def post_in_conflict(session: AsyncSession, note: str) -> str:
        session.add(posting(note))
        await session.flush()
        if dbos.current.attempt == 1:
            raise conflict()
        return note

    @scenario
    @dbos.workflow
    async def steps() -> int:
        return await triple(await double(1))

    @scenario
    @dbos.workflow
    async def retried() -> int:
        return await succeed_at(2)

    @scenario
    @dbos.workflow
    async def exhausted() -> int:
        return await succeed_at(9)

    @scenario
    @dbos.workflow
    async def limited() -> int:
        try:
            await be_late()
        except StepTimeoutError:
            return await double(1)
        return 0

    @scenario
    @dbos.workflow
    async def caught() -> int:
        try:
            await fail("on purpose")
        except ValueError as error:
            return await double(len(str(error)))
        return 0

    @scenario
    @dbos.workflow
    async def raising() -> int:
        raise LookupError(f"nothing at {await double(4)}")

    @scenario
    @dbos.workflow
    async def transactional() -> str:
        return await post("once")

    @scenario
    @dbos.workflow
    async def rolled_back() -> str:
        try:
            return await post_and_fail("never")
        except ValueError:
            return await post("instead")

    @scenario
    @dbos.workflow
    async def refused() -> str:
        try:
            await post_and_return_a_lock("never")
        except SerializationError as error:
            return error.path
        return "never"

    @scenario
    @dbos.workflow
    async def conflicting() -> str:
        return await post_in_conflict("once")

    @scenario
    @dbos.workflow
    async def sleeping() -> None:
        await dbos.sleep(0.001)
        await nap()

    @scenario
    @dbos.workflow
    async def moments() -> bool:
        drawn = [dbos.uuid(), await dbos.now(), uuid.UUID(int=dbos.random.getrandbits(128))]
        return await keep(drawn) == drawn

    @dbos.workflow
    async def poster(note: str) -> str:
        return await post(note)

    @dbos.workflow
    async def child(number: int) -> str:
        return str(await double(number))

    @dbos.transaction
    async def post_and_start(session: AsyncSession, note: str) -> list[str]:
        session.add(posting(note))
        handles = [await child.start(7), await child.start_in(session, 8)]
        return [handle.workflow_id for handle in handles]

    @scenario
    @dbos.workflow
    async def children_of_a_transaction() -> list[str]:
        return [await child.handle(started).result() for started in await post_and_start("once")]

    @dbos.workflow
    async def parent(number: int) -> str:
        return await poster(str(number))

    @dbos.workflow
    async def failing_child(reason: str) -> int:
        raise LookupError(reason)

    @dbos.workflow
    async def endless_child() -> None:
        await dbos.sleep(FOR_EVER)

    @scenario
    @dbos.workflow
    async def gathered() -> tuple[int, int, int]:
        return await asyncio.gather(double(1), triple(2), succeed_at(2))

    @scenario
    @dbos.workflow
    async def gathered_transactions() -> tuple[str, int, str]:
        return await asyncio.gather(post("a"), double(1), post("b"))

    async def part(number: int) -> list[Any]:
        return [await post(f"part {number}"), *await dbos.gather(triple(number), repeated(number))]

    async def family(number: int) -> str:
        return await child(number)

    async def repeated(number: int) -> int:
        return await double(await succeed_at(2) * number)

    @scenario
    @dbos.workflow
    async def scoped() -> list[Any]:
        found: list[Any] = await dbos.gather(part(1), family(2))
        return [*found, await double(5)]

    @scenario
    @dbos.workflow
    async def tasks() -> list[Any]:
        task = dbos.task(moving())
        return [await double(2), await task]

    async def moving() -> bool:
        drawn = [dbos.uuid(), await dbos.now()]
        await dbos.sleep(0.001)
        return await keep(drawn) == drawn

    async def napping() -> None:
        await nap()
        dbos.task(posting_behind())

    async def posting_behind() -> None:
        await post("behind")

    @scenario
    @dbos.workflow
    async def left_at_work() -> int:
        dbos.task(napping())
        return await double(1)

    @scenario
    @dbos.workflow
    async def called_child() -> str:
        return await parent(7)

    @scenario
    @dbos.workflow
    async def started_child() -> str:
        handle = await child.start(7)
        return await handle.result()

    @scenario
    @dbos.workflow
    async def named_children() -> list[str]:
        named = child.options(workflow_id=f"{dbos.current.workflow_id}-named")
        handle = await named.start(7)
        return [await named(7), await handle.result()]

    @scenario
    @dbos.workflow
    async def forgotten_child() -> str:
        return (await child.start(7)).workflow_id

    @scenario
    @dbos.workflow
    async def failed_child() -> str:
        try:
            await failing_child("on purpose")
        except LookupError as error:
            return str(error)
        return "never"

    @scenario
    @dbos.workflow
    async def asked_child() -> list[str]:
        handle = await child.start(7)
        await handle.result()
        await handle.cancel()
        return [await handle.status(), (await handle.describe()).name, (await handle.steps())[0].name]

    @scenario
    @dbos.workflow
    async def timed_out_child() -> str:
        try:
            await endless_child.options(timeout=TIMEOUT)()
        except WorkflowTimeoutError:
            return "in time"
        return "never"

    @scenario
    @dbos.workflow
    async def interrupted() -> int:
        before = await double(1)
        if journal.is_first_time():
            raise Interruption
        return before + await double(2)

    @scenario
    @dbos.workflow
    async def mixture() -> str:
        await failing_child.start("unheard")
        return await post(str(await succeed_at(2)))

    return workflows
