"""Transactional steps on another database than the workflow's, in coroutines."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.integration.pairs import Pair, forget_history
from tests.integration.shop import Interruption, Item, launched_async, names_of_items
from tests.processes import PATIENCE


async def add_item_async(session: AsyncSession, name: str) -> str:
    session.add(Item(name=name))
    return name


async def test_coroutines_commit_in_the_other_database(pair: Pair) -> None:
    async with launched_async(pair.main) as dbos:
        other = dbos.transaction(sessionmaker=pair.async_maker(), name="other")(add_item_async)
        main = dbos.transaction(name="main")(add_item_async)

        @dbos.workflow
        async def work() -> list[str]:
            return [await other("a"), await main("b"), await other("c")]

        assert await work.options(workflow_id="w")() == ["a", "b", "c"]
        assert await other("d") == "d"
        kinds = [step.kind for step in await dbos.handle("w").steps()]
    assert kinds == ["transaction"] * 3
    assert (names_of_items(pair.other), names_of_items(pair.main)) == (["a", "c", "d"], ["b"])
    assert len(pair.outputs()) == 2


async def test_coroutines_adopt_what_was_committed_there(pair: Pair) -> None:
    calls = []
    async with launched_async(pair.main) as dbos:

        @dbos.transaction(sessionmaker=pair.async_maker())
        async def add(session: AsyncSession) -> str:
            calls.append(1)
            return await add_item_async(session, "tea")

        @dbos.workflow
        async def work() -> str:
            found = await add()
            if len(calls) == 1:
                calls.append(0)
                forget_history(pair.main)
                raise Interruption
            return found

        with pytest.raises(Interruption):
            await work.options(workflow_id="w")()
        assert await dbos.handle("w").result(PATIENCE) == "tea"
    assert calls == [1, 0]
    assert names_of_items(pair.other) == ["tea"]


async def test_a_coroutine_joins_on_another_maker_of_the_same_database(pair: Pair) -> None:
    async with launched_async(pair.main) as dbos:
        maker = async_sessionmaker(pair.main.make_async_engine())
        inner = dbos.transaction(sessionmaker=maker, name="inner")(add_item_async)

        @dbos.transaction
        async def outer(session: AsyncSession) -> str:
            return await inner("tea")

        assert await outer() == "tea"
    assert names_of_items(pair.main) == ["tea"]
