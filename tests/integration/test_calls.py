"""Calls that are made before they are started, workflows by name, and arguments converted by their annotations."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from datetime import date
from typing import Any

import pydantic
import pytest

from dbos_orm import DBOS, AsyncDBOS, Call, WorkflowStatus
from dbos_orm.errors import (
    ArgumentError,
    ConfigurationError,
    InstanceNotRegisteredError,
    NotRegisteredError,
    SerializationError,
)
from tests.databases import TestDatabase
from tests.integration.shop import count_of
from tests.processes import PATIENCE


class Address(pydantic.BaseModel):
    city: str


@dataclass
class Line:
    item: str
    count: int = 1


# -- calls ---------------------------------------------------------------------------------------


def test_a_call_holds_what_is_to_be_started() -> None:
    dbos = DBOS(name="shop")

    @dbos.workflow(name="work")
    def work(number: int, *, note: str = "") -> str:
        return f"{number}{note}"

    call: Call[str] = work.options(workflow_id="w").call(1, note="!")
    assert (call.name, call.arguments, call.keywords, call.options) == (
        "work",
        (1,),
        {"note": "!"},
        {"workflow_id": "w"},
    )
    assert repr(call) == "<Call work(1, note='!')>"


def test_a_call_is_checked_when_it_is_made() -> None:
    dbos = DBOS(name="shop")

    @dbos.workflow(name="work")
    def work(number: Any) -> None: ...

    class Shop:
        @dbos.workflow
        def order(self) -> None: ...

    with pytest.raises(TypeError):
        work.call()  # type: ignore[call-arg]
    with pytest.raises(SerializationError, match=r"arguments\.number"):
        work.call(object())
    with pytest.raises(InstanceNotRegisteredError):
        Shop().order.call()


# -- by name -------------------------------------------------------------------------------------


def test_a_workflow_is_found_by_its_name(dbos: DBOS) -> None:
    @dbos.workflow(name="work")
    def work(number: int) -> int:
        return number + 1

    assert dbos.named("work")(1) == 2
    assert dbos.named("work").start(2).result(PATIENCE) == 3
    with pytest.raises(NotRegisteredError, match=r"registered: \['work'\]"):
        dbos.named("wrok")


async def test_a_coroutine_is_found_by_its_name(async_dbos: AsyncDBOS) -> None:
    @async_dbos.workflow(name="work")
    async def work(number: int) -> int:
        return number + 1

    assert await async_dbos.named("work")(1) == 2


# -- coercion ------------------------------------------------------------------------------------


def test_arguments_are_converted_before_they_are_stored(dbos: DBOS) -> None:
    @dbos.workflow(coerce=True)
    def work(number: int, day: date, address: Address, *lines: Line, **counts: int) -> tuple[Any, ...]:
        return number, day, address, lines, counts

    untyped: Any = work
    expected = (42, date(2026, 11, 22), Address(city="Riga"), (Line("tea", 2),), {"a": 1})
    given = ("42", "2026-11-22", {"city": "Riga"}, {"item": "tea", "count": "2"})
    assert untyped(*given, a="1") == expected
    handle = untyped.start(*given, a="1")
    assert handle.result(PATIENCE) == expected
    assert untyped.call(*given).arguments[0] == 42


def test_an_argument_that_cannot_be_converted_is_named_and_nothing_is_stored(
    dbos: DBOS, database: TestDatabase
) -> None:
    @dbos.workflow(name="work", coerce=True)
    def work(number: int, lines: list[Line]) -> None: ...

    untyped: Any = work
    with pytest.raises(ArgumentError, match=r"workflow 'work', argument number: .*valid integer.*, got 'x'") as caught:
        untyped.start("x", [])
    assert caught.value.argument == "number"
    with pytest.raises(ArgumentError) as caught:
        untyped(1, [{"item": "tea"}, {"item": "milk", "count": "many"}])
    assert caught.value.argument == "lines[1].count"
    with pytest.raises(TypeError):
        untyped(1)
    assert count_of(database, WorkflowStatus) == 0


def test_a_method_is_converted_without_its_instance(dbos: DBOS) -> None:
    class Shop:
        @dbos.workflow(coerce=True)
        def order(self, number: int) -> int:
            return number

    shop: Any = dbos.register(Shop(), name="eu")
    assert shop.order("7") == 7


def test_annotations_may_be_defined_behind_the_function(dbos: DBOS) -> None:
    @dbos.workflow(coerce=True)
    def work(later: Later) -> str:
        return later.note

    untyped: Any = work
    assert untyped({"note": "x"}) == "x"


@dataclass
class Later:
    note: str


class Unknown:
    """Nothing that pydantic could make."""


def test_what_cannot_be_converted_to_is_refused_when_decorating(monkeypatch: pytest.MonkeyPatch) -> None:
    dbos = DBOS(name="shop")
    with pytest.raises(ConfigurationError, match="annotations that pydantic can use"):

        @dbos.workflow(name="one", coerce=True)
        def one(thing: Unknown) -> None: ...

    @dbos.workflow(name="two", coerce=True)
    def two(thing: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(ConfigurationError, match="Nowhere"):
        two.call(1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install pydantic"):

        @dbos.workflow(name="three", coerce=True)
        def three() -> None: ...
