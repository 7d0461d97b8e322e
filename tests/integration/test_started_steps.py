"""Steps that are started as workflows."""

from __future__ import annotations

from typing import Any

import pytest

from dbos_orm import DBOS, AsyncDBOS, Retry
from dbos_orm.errors import ConfigurationError, ConflictingRegistrationError
from tests.databases import TestDatabase
from tests.integration.shop import SOON, launched
from tests.processes import PATIENCE


def test_a_step_is_started_as_a_workflow_of_one_step(dbos: DBOS) -> None:
    attempts: list[int] = []

    @dbos.step(retry=Retry(max_attempts=2, backoff=0.01))
    def charge(total: int, *, currency: str = "EUR") -> str:
        attempts.append(total)
        if len(attempts) < 2:
            raise ConnectionError("try again")
        return f"{total} {currency}"

    handle = charge.start(42, currency="USD")
    assert handle.result(PATIENCE) == "42 USD"
    assert handle.describe().name == f"step:{charge.name}"
    assert [(step.path, step.name) for step in handle.steps()] == [("1", charge.name)]
    assert attempts == [42, 42]


def test_a_started_step_is_run_by_any_process_that_has_it(database: TestDatabase) -> None:
    bound = DBOS(database.make_engine(), name="shop")
    handle = bound.step(name="length")(len).start("abc")
    with launched(database) as dbos:
        assert dbos.workflow(name="other")(lambda: 1).start().result(PATIENCE) == 1
        assert handle.status() == "ENQUEUED"
        dbos.step(name="length")(len)
        assert handle.result(PATIENCE) == 3


def test_a_step_is_started_as_a_child(dbos: DBOS) -> None:
    @dbos.step
    def double(number: int) -> int:
        return 2 * number

    @dbos.workflow
    def work() -> int:
        return double.start(1).result() + double(3)

    assert work() == 8


def test_a_workflow_may_have_the_name_of_a_step(dbos: DBOS) -> None:
    step = dbos.step(name="work")(lambda: "step")
    workflow = dbos.workflow(name="work")(lambda: "workflow")
    assert (step.start().result(PATIENCE), workflow.start().result(PATIENCE)) == ("step", "workflow")


def test_a_method_is_not_started() -> None:
    dbos = DBOS(name="shop")

    class Shop:
        @dbos.step
        def price(self) -> int:
            return 1

    with pytest.raises(ConfigurationError, match="start a workflow method that calls it"):
        Shop().price.start()


def test_the_arguments_are_checked(dbos: DBOS) -> None:
    untyped: Any = dbos.step(name="length")(len)
    with pytest.raises(TypeError):
        untyped.start()


def test_names_of_started_steps_are_reserved(dbos: DBOS) -> None:
    dbos.step(name="work")(len)
    with pytest.raises(ConflictingRegistrationError):
        dbos.workflow(name="step:work")(lambda: 1)


async def test_steps_of_coroutines_are_started(database: TestDatabase) -> None:
    async with AsyncDBOS(database.make_async_engine(), name="shop", config=SOON) as dbos:

        @dbos.step
        async def double(number: int) -> int:
            return 2 * number

        length = dbos.step(name="length")(len)
        assert await (await double.start(4)).result(PATIENCE) == 8
        assert await (await length.start("abc")).result(PATIENCE) == 3
