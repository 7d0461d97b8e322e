"""The same promises for coroutines."""

from __future__ import annotations

import asyncio
import builtins
import inspect
import sys
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker

from dbos_orm import AsyncDBOS, Retry, WorkflowState
from dbos_orm.errors import (
    ConflictingWorkflowError,
    MaxStepRetriesExceededError,
    NonDeterministicError,
    NotInWorkflowError,
    SessionMisuseError,
    StartInStepError,
    WorkflowExistsError,
    WorkflowNotFoundError,
)
from tests.databases import TestDatabase
from tests.integration.shop import SOON, Base, Interruption, Item, OutOfStockError, names_of_items
from tests.processes import PATIENCE


async def test_calls_starts_and_children(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step()
    async def double(number: int) -> int:
        return 2 * number

    @dbos.step
    def triple(number: int) -> int:
        return 3 * number

    @dbos.workflow
    async def child(number: int) -> tuple[int, str | None]:
        return await double(number), dbos.current.parent_id

    @dbos.workflow()
    async def work(number: int) -> list[Any]:
        handle = await child.start(number)
        return [await triple(number), handle.workflow_id, await handle.result(), await child(number + 1)]

    expected = [21, "w-1", (14, "w"), (16, "w")]
    assert await work.options(workflow_id="w")(7) == expected
    again = await work.options(workflow_id="w").start(7)
    assert (again.created, await again.result(), await again.status()) == (False, expected, WorkflowState.SUCCESS)
    assert [step.kind for step in await again.steps()] == ["child", "step", "result", "child", "result"]
    assert (await again.describe()).workflow_id == "w"
    started = await work.start(7)
    assert started.created
    assert (await started.result(PATIENCE))[0] == 21


async def test_known_ids(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.workflow(name="pay")
    async def pay() -> None: ...

    @dbos.workflow(name="ship")
    async def ship() -> None: ...

    await pay.options(workflow_id="order-17")()
    with pytest.raises(WorkflowExistsError):
        await pay.options(workflow_id="order-17", on_existing="raise").start()
    with pytest.raises(ConflictingWorkflowError):
        await ship.options(workflow_id="order-17")()
    with pytest.raises(WorkflowNotFoundError):
        await dbos.handle("missing").result()


async def test_a_second_direct_call_of_an_id_on_its_own_stack_raises(async_dbos: AsyncDBOS) -> None:
    @async_dbos.workflow
    async def outer() -> str:
        with pytest.raises(ConflictingWorkflowError, match="wait for itself"):
            await outer.options(workflow_id="w")()
        return "went on"

    assert await outer.options(workflow_id="w")() == "went on"


async def test_a_decorated_coroutine_function_is_seen_as_one(async_dbos: AsyncDBOS) -> None:
    @async_dbos.workflow
    async def work(number: int) -> None: ...

    @async_dbos.transaction
    async def add(session: AsyncSession, name: str) -> None: ...

    @async_dbos.step
    def step() -> None: ...

    # In Python 3.11 inspect knows no mark, and asyncio its own; from 3.14 on asyncio's question is deprecated.
    is_one = (
        inspect.iscoroutinefunction if sys.version_info >= (3, 12) else vars(asyncio.coroutines)["iscoroutinefunction"]
    )
    assert [is_one(each) for each in (work, add, step)] == [True] * 3
    assert list(inspect.signature(add).parameters) == ["name"]


async def test_a_caller_without_patience_gets_the_builtin_timeout_error(async_dbos: AsyncDBOS) -> None:
    may_go_on = asyncio.Event()

    @async_dbos.workflow
    async def work() -> str:
        await may_go_on.wait()
        return "done"

    handle = await work.start()
    with pytest.raises(builtins.TimeoutError, match="it goes on"):
        await handle.result(0.05)
    with pytest.raises(builtins.TimeoutError):
        await asyncio.wait_for(handle.result(), 0.05)
    may_go_on.set()
    assert await handle.result(PATIENCE) == "done"


async def test_a_hundred_workflows_at_once(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step
    async def double(number: int) -> int:
        return 2 * number

    @dbos.workflow
    async def child(number: int) -> int:
        return await double(number)

    @dbos.workflow
    async def parent(number: int) -> int:
        return await (await child.start(number)).result()

    handles = await asyncio.gather(*(parent.start(number) for number in range(100)))
    assert await asyncio.gather(*(handle.result(PATIENCE) for handle in handles)) == [2 * n for n in range(100)]


# -- steps and transactions ----------------------------------------------------------------------


async def test_a_replay_gives_what_was_recorded(async_dbos: AsyncDBOS) -> None:
    dbos, seen = async_dbos, list[Any]()

    @dbos.step
    async def fail() -> None:
        raise OutOfStockError("tea", left=len(seen))

    @dbos.workflow
    async def work() -> None:
        now, made = await dbos.now(), dbos.uuid()
        try:
            await fail()
        except OutOfStockError as error:
            seen.append((now, made, dbos.random.random(), error.left))
        if len(seen) == 1:
            raise Interruption

    with pytest.raises(Interruption):
        await work.options(workflow_id="w")()
    await dbos.handle("w").result(PATIENCE)
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert isinstance(seen[0][0], datetime)


async def test_a_changed_workflow_is_told_apart(async_dbos: AsyncDBOS) -> None:
    dbos, runs = async_dbos, list[int]()

    @dbos.step(name="one")
    async def one() -> None: ...

    @dbos.step(name="two")
    async def two() -> None: ...

    @dbos.workflow
    async def work() -> None:
        runs.append(1)
        if len(runs) == 1:
            await one()
            raise Interruption
        await two()

    with pytest.raises(Interruption):
        await work.options(workflow_id="w")()
    with pytest.raises(NonDeterministicError, match="recorded 'one', but the code now calls 'two'"):
        await dbos.handle("w").result(PATIENCE)


async def test_retries(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step(retry=Retry(max_attempts=3, backoff=0))
    async def charge(successful: int) -> int:
        if dbos.current.attempt != successful:
            raise OutOfStockError("tea", left=dbos.current.attempt)
        return dbos.current.attempt

    @dbos.workflow
    async def pay(successful: int) -> int:
        return await charge(successful)

    assert await pay(3) == 3
    with pytest.raises(MaxStepRetriesExceededError) as caught:
        await pay(4)
    assert [getattr(error, "left", None) for error in caught.value.errors] == [1, 2, 3]


async def test_a_transaction_commits_once_or_not_at_all(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    dbos, runs = async_dbos, list[int]()

    @dbos.transaction
    async def inner(session: AsyncSession, name: str) -> bool:
        session.add(Item(name=name))
        return dbos.session is session

    @dbos.transaction
    async def add(session: AsyncSession, name: str, *, fail: bool = False) -> bool:
        joined = await inner(name)
        try:
            async with session.begin_nested():
                session.add(Item(name=name))
        except IntegrityError:
            session.add(Item(name=f"more {name}"))
        if fail:
            raise OutOfStockError(name, left=0)
        return joined

    @dbos.workflow
    async def work() -> bool:
        runs.append(1)
        joined = await add("tea")
        with pytest.raises(OutOfStockError):
            await add("milk", fail=True)
        if len(runs) == 1:
            raise Interruption
        return joined

    with pytest.raises(Interruption):
        await work.options(workflow_id="w")()
    assert await dbos.handle("w").result(PATIENCE)
    assert names_of_items(database) == ["more tea", "tea"]
    assert await add("sugar")
    assert names_of_items(database) == ["more sugar", "more tea", "sugar", "tea"]
    with pytest.raises(NotInWorkflowError):
        _ = dbos.session


async def test_commit_inside_a_transaction_is_refused(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    dbos = async_dbos

    @dbos.transaction
    async def add(session: AsyncSession) -> None:
        session.add(Item(name="tea"))
        await session.commit()

    @dbos.workflow
    async def work() -> None:
        await add()

    with pytest.raises(SessionMisuseError):
        await work()
    assert names_of_items(database) == []


async def test_within_uses_the_callers_session(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    @async_dbos.transaction
    async def add(session: AsyncSession, name: str) -> None:
        session.add(Item(name=name))

    async with AsyncSession(database.make_async_engine()) as session:
        await add.within(session, "tea")
        assert len(session.new) == 1
        assert names_of_items(database) == []
        await session.commit()
    assert names_of_items(database) == ["tea"]


@pytest.mark.parametrize("kind", ["engine", "async_sessionmaker", "async_scoped_session", "URL"])
async def test_every_kind_of_bind_works(database: TestDatabase, kind: str) -> None:
    engine = database.make_async_engine()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    maker = async_sessionmaker(engine)
    bind: Any = {
        "engine": engine,
        "async_sessionmaker": maker,
        "async_scoped_session": async_scoped_session(maker, scopefunc=asyncio.current_task),
        "URL": database.async_url,
    }[kind]
    async with AsyncDBOS(bind, name="shop", config=SOON) as dbos:

        @dbos.transaction
        async def add(session: AsyncSession, name: str) -> list[str]:
            session.add(Item(name=name))
            return list(await session.scalars(select(Item.name)))

        @dbos.workflow
        async def work() -> list[str]:
            return await add("tea")

        assert await work() == ["tea"]


async def test_a_start_inside_a_plain_step_is_refused(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.workflow
    async def ship() -> None: ...

    @dbos.step
    async def charge() -> None:
        for start in (ship, ship.start):
            with pytest.raises(StartInStepError):
                await start()

    @dbos.workflow
    async def work() -> None:
        await charge()

    await work()
