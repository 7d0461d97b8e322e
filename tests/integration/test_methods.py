"""Workflows, steps and transactions that are methods: of instances that have a name, and static ones."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, WorkflowStatus
from dbos_orm.errors import (
    ConfigurationError,
    ConflictingRegistrationError,
    ConflictingWorkflowError,
    InstanceNotRegisteredError,
    NotRegisteredError,
)
from tests.databases import TestDatabase
from tests.integration.shop import Item, count_of, launched, names_of_items
from tests.integration.shops import PRICES, Shops, row_of
from tests.processes import PATIENCE


def test_a_workflow_method_runs_on_its_instance(database: TestDatabase) -> None:
    with launched(database) as dbos:
        shops = Shops(dbos)
        eu = dbos.register(shops.Shop("eu", PRICES), name="eu")
        us = dbos.register(shops.Shop("us", {"tea": 5}), name="us")
        assert eu.order.options(workflow_id="w")("tea") == "eu: 3"
        assert us.order.start("tea", times=2).result(PATIENCE) == "us: 10"
        row = row_of(dbos, "w")
        assert (row.name, row.class_name, row.config_name) == ("Shop.order", "Shops.__init__.<locals>.Shop", "eu")
        assert [step.name for step in dbos.handle("w").steps()] == ["Shop.price", "Shop.store"]
    assert names_of_items(database) == ["tea eu 0", "tea us 0", "tea us 1"]


def test_methods_start_and_call_each_other_as_children(database: TestDatabase) -> None:
    with launched(database) as dbos:
        shops = Shops(dbos)
        eu = dbos.register(shops.Shop("eu", PRICES), name="eu")
        assert eu.order_both.options(workflow_id="w")("milk", "tea") == ("eu: 3", "eu: 2")
        assert row_of(dbos, "w-1").config_name == "eu"


def test_a_method_can_be_given_its_instance_as_first_argument(database: TestDatabase) -> None:
    with launched(database) as dbos:
        shops = Shops(dbos)
        eu = dbos.register(shops.Shop("eu", PRICES), name="eu")
        assert shops.Shop.order(eu, "tea") == "eu: 3"
        assert shops.Shop.order.start(eu, "milk").result(PATIENCE) == "eu: 2"
        assert shops.Shop.price(eu, "tea") == 3
        assert shops.Shop.store(eu, "coffee") == 1
        with pytest.raises(TypeError, match="pass the instance first"):
            shops.Shop.order()  # type: ignore[call-arg]


def test_steps_and_transactions_need_no_registered_instance(database: TestDatabase) -> None:
    with launched(database) as dbos:
        shops = Shops(dbos)

        @dbos.workflow
        def work() -> int:
            shop = shops.Shop("eu", PRICES)
            return shop.price("tea") + shop.store("tea")

        assert work() == 4
        with Session(dbos._runtime.bound("test").engine) as session, session.begin():
            assert shops.Shop("us", {}).store.within(session, "milk") == 1
    assert names_of_items(database) == ["milk us 0", "tea eu 0"]


def test_a_static_method_is_called_through_the_class_and_through_an_instance(database: TestDatabase) -> None:
    with launched(database) as dbos:
        shops = Shops(dbos)
        assert shops.Shop.greet("you") == "hello you"
        of_instance: Any = shops.Shop("eu", {}).greet  # checkers take it for a method there
        assert of_instance.start("me").result(PATIENCE) == "hello me"


# -- registration --------------------------------------------------------------------------------


@pytest.fixture
def made() -> tuple[DBOS, Shops]:
    dbos = DBOS(name="shop")
    return dbos, Shops(dbos)


def test_an_instance_without_a_name_is_refused_where_its_workflow_is_called(database: TestDatabase) -> None:
    with launched(database) as dbos:
        shops = Shops(dbos)
        dbos.register(shops.Shop("us", {}), name="us")
        attempts: list[Callable[[Any], Any]] = [lambda shop: shop.order("tea"), lambda shop: shop.order.start("tea")]
        for attempt in attempts:
            with pytest.raises(InstanceNotRegisteredError, match=r"dbos\.register\(") as caught:
                attempt(shops.Shop("eu", PRICES))
            assert isinstance(caught.value, NotRegisteredError)
            assert (caught.value.name, caught.value.registered) == ("Shop.order", ["us"])
        assert count_of(database, WorkflowStatus) == 0


def test_a_copy_of_a_registered_instance_is_another_object(database: TestDatabase) -> None:
    with launched(database) as dbos:
        eu = dbos.register(Shops(dbos).Shop("eu", PRICES), name="eu")
        with pytest.raises(InstanceNotRegisteredError):
            copy.copy(eu).order("tea")


def test_a_name_stands_for_one_instance_of_a_class(made: tuple[DBOS, Shops]) -> None:
    dbos, shops = made
    eu = dbos.register(shops.Shop("eu", {}), name="eu")
    assert dbos.register(eu, name="eu") is eu
    with pytest.raises(ConflictingRegistrationError, match="'eu'"):
        dbos.register(shops.Shop("eu", {}), name="eu")
    with pytest.raises(ConfigurationError, match="which this object has"):
        dbos.register(eu, name="other")
    dbos.register(shops.Discounter("eu", {}), name="eu")


@pytest.mark.parametrize("wrong", [7, "shop", Shops, object()])
def test_what_has_no_workflow_methods_is_not_registered(made: tuple[DBOS, Shops], wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="a method under @workflow of application 'shop'"):
        made[0].register(wrong, name="x")
    with pytest.raises(ConfigurationError, match="a method under @workflow"):
        made[0].register(made[1].Shop, name="x")


def test_an_instance_of_another_application_is_not_registered(made: tuple[DBOS, Shops]) -> None:
    with pytest.raises(ConfigurationError, match="a method under @workflow"):
        DBOS(name="other").register(made[1].Shop("eu", {}), name="x")
    for name in ("", 7):
        with pytest.raises(ConfigurationError):
            made[0].register(made[1].Shop("eu", {}), name=name)  # type: ignore[arg-type]


def test_the_same_id_on_another_instance_is_a_conflict(database: TestDatabase) -> None:
    with launched(database) as dbos:
        shops = Shops(dbos)
        eu, us = (dbos.register(shops.Shop(name, PRICES), name=name) for name in ("eu", "us"))
        eu.order.options(workflow_id="w")("tea")
        with pytest.raises(ConflictingWorkflowError) as caught:
            us.order.options(workflow_id="w").start("tea")
        assert (caught.value.field, caught.value.recorded, caught.value.given) == ("config_name", "eu", "us")


def test_class_methods_are_refused_in_either_order(made: tuple[DBOS, Shops]) -> None:
    dbos, _ = made
    decorators: list[Any] = [dbos.workflow, dbos.step]
    for decorate in decorators:
        with pytest.raises(ConfigurationError, match="make it a @staticmethod, or a method of an instance"):

            class Shop:
                @classmethod
                @decorate  # type: ignore[untyped-decorator]
                def open(cls) -> None: ...


# -- binding -------------------------------------------------------------------------------------


def test_a_method_looks_like_one(made: tuple[DBOS, Shops]) -> None:
    eu = made[1].Shop("eu", {})
    assert str(inspect.signature(eu.order)) == "(item: 'str', times: 'int' = 1) -> 'str'"
    assert list(inspect.signature(eu.store).parameters) == ["item", "times"]
    assert list(inspect.signature(made[1].Shop.order).parameters) == ["self", "item", "times"]
    assert eu.order.__name__ == "order"


class Plain:
    """An ordinary class, at module level so that its instances pickle."""

    dbos = DBOS(name="plain")

    def __init__(self, number: int) -> None:
        self.number = number

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.number

    @dbos.step
    def add(self, other: int) -> int:
        return self.double + other

    @dbos.workflow
    def work(self) -> int:
        return self.add(1)


def test_binding_leaves_nothing_in_the_instance() -> None:
    plain = Plain.dbos.register(Plain(4), name="four")
    assert plain.add(1) == 9
    assert plain.work is not None
    assert vars(plain) == {"number": 4, "double": 8}
    again = pickle.loads(pickle.dumps(plain))
    assert again.add(2) == 10


def test_a_step_of_a_builtin_is_no_method(made: tuple[DBOS, Shops]) -> None:
    class Shop:
        length = made[0].step(len, name="length")

    shop: Any = Shop()
    assert shop.length("abc") == 3


# -- async ---------------------------------------------------------------------------------------


async def test_methods_of_coroutines(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    dbos = async_dbos

    class Shop:
        def __init__(self, region: str) -> None:
            self.region = region

        @dbos.step
        async def price(self, item: str) -> int:
            return len(item)

        @dbos.transaction
        async def store(self, session: AsyncSession, item: str) -> None:
            session.add(Item(name=f"{item} {self.region}"))

        @dbos.workflow
        async def order(self, item: str) -> str:
            await self.store(item)
            return f"{self.region}: {await self.price(item)}"

    eu = dbos.register(Shop("eu"), name="eu")
    assert await eu.order("tea") == "eu: 3"
    assert await (await eu.order.start("milk")).result(PATIENCE) == "eu: 4"
    assert names_of_items(database) == ["milk eu", "tea eu"]
    with pytest.raises(InstanceNotRegisteredError):
        await Shop("us").order("tea")
