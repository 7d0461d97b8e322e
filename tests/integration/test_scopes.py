"""Coroutines side by side in a workflow: numbers of their own, the same again in any order, and none left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from dbos_orm import AsyncDBOS
from dbos_orm.errors import ConfigurationError, NonDeterministicError, StepOutsideScopeError
from dbos_orm.models import StepOutput
from tests.databases import TestDatabase
from tests.integration.shop import Interruption, Item, Money, OutOfStockError, names_of_items, reading
from tests.processes import PATIENCE


async def paths_of(dbos: AsyncDBOS, workflow_id: str) -> dict[str, Any]:
    """The recorded steps of a workflow: path and output."""
    return {step.path: step.output for step in await dbos.handle(workflow_id).steps()}


async def test_gathered_coroutines_have_numbers_of_their_own(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async def twice(number: int) -> int:
        return await double(await double(number))

    async def many(number: int) -> list[int]:
        return await dbos.gather(*[twice(number + index) for index in range(2)])

    @dbos.workflow
    async def work() -> tuple[int, list[int], int, int]:
        first, second, third = await dbos.gather(twice(1), many(10), double(5))
        return first, second, third, await double(100)

    assert await work.options(workflow_id="w")() == (4, [40, 44], 10, 200)
    # The direct call drew its number when it was called, before gather numbered the three.
    assert await paths_of(dbos, "w") == {
        "1": 10, "2.1": 2, "2.2": 4, "3.1.1": 20, "3.1.2": 40, "3.2.1": 22, "3.2.2": 44, "5": 200,
    }  # fmt: skip


async def test_tasks_have_numbers_of_their_own(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step
    async def double(number: int) -> int:
        return 2 * number

    async def twice(number: int) -> int:
        return await double(await double(number))

    @dbos.workflow
    async def work() -> list[int]:
        task = dbos.task(twice(1), name="mine")
        assert task.get_name() == "mine"
        other = dbos.task(twice(2))
        assert other.get_name() == "dbos w 2"
        return [await double(10), *await dbos.gather(other, task)]

    assert await work.options(workflow_id="w")() == [20, 8, 4]
    assert await paths_of(dbos, "w") == {"1.1": 2, "1.2": 4, "2.1": 4, "2.2": 8, "3": 20}


async def test_everything_durable_works_in_a_scope(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    dbos = async_dbos

    @dbos.transaction
    async def add(session: AsyncSession, name: str) -> str:
        session.add(Item(name=name))
        return name

    @dbos.workflow
    async def child(number: int) -> tuple[int, str | None]:
        return number, dbos.current.parent_id

    async def part(number: int) -> list[Any]:
        await dbos.sleep(0.001)
        handle = await child.start(number)
        return [await add(f"item {number}"), await child(number), await handle.result(), dbos.random.random()]

    @dbos.workflow
    async def work() -> tuple[list[Any], list[Any]]:
        return await dbos.gather(part(1), part(2))

    first, second = await work.options(workflow_id="w")()
    assert first[:3] == ["item 1", (1, "w"), (1, "w")]
    assert first[3] != second[3]
    assert names_of_items(database) == ["item 1", "item 2"]
    assert [step.child_id for step in await dbos.handle("w").steps() if step.kind == "child"] == [
        "w-1.2", "w-1.4", "w-2.2", "w-2.4",
    ]  # fmt: skip


async def test_a_replay_that_finishes_in_another_order_gets_the_same_results(async_dbos: AsyncDBOS) -> None:
    dbos, ran, order = async_dbos, list[str](), list[str]()
    is_fast_done, is_slow_done = asyncio.Event(), asyncio.Event()

    @dbos.step
    async def note(name: str) -> str:
        ran.append(name)
        return name

    async def slow() -> str:
        first = await note("slow 1")
        if not is_slow_done.is_set():
            await is_fast_done.wait()
        result = f"{first}, {await note('slow 2')}"
        order.append("slow")
        is_slow_done.set()
        return result

    async def fast() -> str:
        if is_fast_done.is_set():
            await is_slow_done.wait()
        result = f"{await note('fast 1')}, {await note('fast 2')}"
        order.append("fast")
        is_fast_done.set()
        return result

    @dbos.workflow
    async def work() -> tuple[str, str]:
        found = await dbos.gather(slow(), fast())
        if len(order) == 2:
            is_slow_done.clear()
            raise Interruption
        return found

    with pytest.raises(Interruption):
        await work.options(workflow_id="w")()
    assert await dbos.handle("w").result(PATIENCE) == ["slow 1, slow 2", "fast 1, fast 2"]
    assert sorted(ran) == ["fast 1", "fast 2", "slow 1", "slow 2"]
    assert order == ["fast", "slow", "slow", "fast"]


async def test_a_scope_is_continued_in_the_middle(async_dbos: AsyncDBOS) -> None:
    dbos, ran = async_dbos, list[str]()

    @dbos.step
    async def note(name: str) -> str:
        ran.append(name)
        if name == "b2" and ran.count("b2") == 1:
            raise Interruption
        return name

    async def part(name: str) -> str:
        return await note(f"{name}1") + await note(f"{name}2") + await note(f"{name}3")

    @dbos.workflow
    async def work() -> tuple[str, str]:
        return await dbos.gather(part("a"), part("b"))

    with pytest.raises(Interruption):
        await work.options(workflow_id="w")()
    assert await dbos.handle("w").result(PATIENCE) == ["a1a2a3", "b1b2b3"]
    assert ran.count("b2") == 2
    assert [ran.count(name) for name in ("a1", "b1", "b3")] == [1, 1, 1]


# -- errors --------------------------------------------------------------------------------------


async def test_the_first_error_in_order_is_raised_when_all_have_ended(async_dbos: AsyncDBOS) -> None:
    dbos, ended = async_dbos, list[str]()
    milk_is_out = asyncio.Event()

    @dbos.step
    async def fail(item: str) -> None:
        if item == "tea":
            await milk_is_out.wait()
        ended.append(item)
        milk_is_out.set()
        raise OutOfStockError(item, left=0)

    async def part(item: str) -> None:
        await fail(item)

    @dbos.workflow
    async def work() -> str:
        try:
            await dbos.gather(part("tea"), part("milk"))
        except OutOfStockError as error:
            return error.item
        return "none"

    assert await work() == "tea"
    assert ended == ["milk", "tea"]


async def test_errors_are_results_where_they_are_asked_for(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step
    async def fail(item: str) -> str:
        raise OutOfStockError(item, left=0)

    async def part(item: str) -> str:
        return await fail(item)

    async def wait() -> None:
        await asyncio.sleep(PATIENCE * 10)

    @dbos.workflow
    async def work() -> list[str]:
        waiting = dbos.task(wait())
        waiting.cancel()
        found = await dbos.gather(part("tea"), waiting, part("milk"), return_exceptions=True)
        return [type(error).__name__ for error in found]

    assert await work() == ["OutOfStockError", "CancelledError", "OutOfStockError"]


async def test_gather_takes_what_asyncio_gather_takes(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step
    async def double(number: int) -> int:
        return 2 * number

    class Later:
        def __await__(self) -> Any:
            return double(5).__await__()

    @dbos.workflow
    async def work() -> list[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result("ready")
        coroutine = double(1)
        both = dbos.gather(coroutine, coroutine)
        return [await dbos.gather(), await both, await dbos.gather(future, Later(), dbos.gather(double(3)))]

    assert await work.options(workflow_id="w")() == [[], [2, 2], ["ready", 10, [6]]]


async def test_outside_a_workflow_and_in_a_step_it_is_asyncios(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    async def double(number: int) -> int:
        return 2 * number

    async def fail() -> None:
        raise OutOfStockError("tea", left=0)

    async def both() -> tuple[int, int, int]:
        task = dbos.task(double(3))
        first, second = await dbos.gather(double(1), double(2))
        with pytest.raises(OutOfStockError):
            await dbos.gather(fail())
        return first, second, await task

    outer = dbos.step(both, name="both")

    @dbos.workflow
    async def work() -> tuple[int, int, int]:
        return await outer()

    assert await both() == (2, 4, 6)
    assert list(await AsyncDBOS(name="unbound").gather(double(1))) == [2]
    assert await work.options(workflow_id="w")() == (2, 4, 6)
    assert await paths_of(dbos, "w") == {"1": (2, 4, 6)}


async def test_a_task_that_the_workflow_did_not_open_can_open_none(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step
    async def double(number: int) -> int:
        return 2 * number

    async def twice(number: int) -> int:
        return await double(await double(number))

    @dbos.workflow
    async def work() -> list[str]:
        async def gather() -> Any:
            return await dbos.gather(twice(1), twice(2))

        async def open_task() -> Any:
            return await dbos.task(twice(1))

        async def call() -> Any:
            return await twice(1)

        def tries(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            return asyncio.create_task(coroutine)

        found = await asyncio.gather(tries(gather()), tries(open_task()), tries(call()), return_exceptions=True)
        operations = []
        for error in found:
            assert isinstance(error, StepOutsideScopeError)
            assert "dbos.gather(...) or dbos.task(...)" in str(error)
            operations.append(error.operation.rpartition(".")[2])
        return operations

    assert await work() == ["gather()", "task()", "double"]


async def test_only_coroutines_become_tasks(async_dbos: AsyncDBOS) -> None:
    wrong: Any = test_only_coroutines_become_tasks
    with pytest.raises(ConfigurationError, match="call the function"):
        async_dbos.task(wrong)


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["step", "transaction", "child"])
async def test_a_replay_with_other_arguments_is_refused_in_a_scope(async_dbos: AsyncDBOS, kind: str) -> None:
    dbos, runs = async_dbos, list[int]()

    @dbos.step(name="step")
    async def step(value: object) -> None: ...

    @dbos.transaction(name="transaction")
    async def transaction(session: AsyncSession, value: object) -> None: ...

    @dbos.workflow(name="child")
    async def child(value: object) -> None: ...

    calls: dict[str, Any] = {"step": step, "transaction": transaction, "child": child}

    async def part(value: object) -> None:
        await calls[kind](value)

    @dbos.workflow
    async def work() -> None:
        runs.append(1)
        await step(len(runs))  # in the root scope the order of calls is enough
        await dbos.gather(part({"same", "set"}))
        await dbos.gather(part(len(runs)))
        raise Interruption

    with pytest.raises(Interruption):
        await work.options(workflow_id="w")()
    with pytest.raises(NonDeterministicError, match="calls it with other arguments") as caught:
        await dbos.handle("w").result(PATIENCE)
    error = caught.value
    assert (error.step, error.recorded, error.called, error.arguments_differ) == ("3.1", kind, kind, True)


async def test_digests_are_recorded_in_scopes_and_only_there(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    dbos = async_dbos

    @dbos.step
    async def take(value: object) -> None: ...

    async def part(value: object) -> None:
        await take(value)

    @dbos.workflow
    async def work() -> None:
        await take(1)
        # What cannot be recorded as an argument is not compared.
        await dbos.gather(part(1), part(1), part(2), part(Money), part({"b": 1, "a": {3, 1, 2}}))

    await work.options(workflow_id="w")()
    with reading(database) as session:
        digests = {step.path: step.digest for step in session.query(StepOutput)}
    assert digests["1"] is digests["5.1"] is None
    assert digests["2.1"] == digests["3.1"] != digests["4.1"]
    assert digests["6.1"] is not None
    assert len(digests["6.1"]) == 16
