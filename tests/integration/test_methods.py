"""Workflows, steps and transactions that are methods: of instances that have a name, and static ones."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, WorkflowState, WorkflowStatus
from dbos_orm._registry import Runnable
from dbos_orm._store import ownership
from dbos_orm.errors import (
    ConfigurationError,
    ConflictingRegistrationError,
    ConflictingWorkflowError,
    InstanceNotRegisteredError,
    NotRegisteredError,
)
from tests.databases import TestDatabase
from tests.integration.shop import Interruption, Item, count_of, launched, names_of_items
from tests.processes import PATIENCE


class Shops:
    """Classes with methods of every kind, made for one application as its module would make them."""

    def __init__(self, dbos: DBOS) -> None:
        self.fails = False
        outer = self

        @dataclass(slots=True)
        class Shop:
            region: str
            prices: dict[str, int]

            @dbos.step(name="Shop.price")
            def price(self, item: str) -> int:
                return self.prices[item]

            @dbos.transaction(name="Shop.store")
            def store(self, session: Session, item: str, *, times: int = 1) -> int:
                session.add_all([Item(name=f"{item} {self.region} {number}") for number in range(times)])
                return times

            @dbos.workflow(name="Shop.order")
            def order(self, item: str, times: int = 1) -> str:
                price = self.price(item)
                if outer.fails:
                    raise Interruption
                self.store(item, times=times)
                return f"{self.region}: {times * price}"

            @dbos.workflow(name="Shop.order_both")
            def order_both(self, first: str, second: str) -> tuple[str, str]:
                later = self.order.start(first)
                return self.order(second), later.result()

            @staticmethod
            @dbos.workflow(name="Shop.greet")
            def greet(name: str) -> str:
                return f"hello {name}"

        class Discounter(Shop):
            @dbos.workflow(name="Discounter.order")
            def order(self, item: str, times: int = 1) -> str:
                return "cheap " + super().order(item, times)

        self.Shop = Shop
        self.Discounter = Discounter


PRICES = {"tea": 3, "milk": 2}


def row_of(dbos: DBOS, workflow_id: str) -> WorkflowStatus:
    with Session(dbos._runtime.bound("test").engine) as session:
        return session.get_one(WorkflowStatus, workflow_id)


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


# -- recovery ------------------------------------------------------------------------------------


def interrupted(database: TestDatabase, make: Callable[[Shops], Any], name: str, start: Callable[[Any], Any]) -> None:
    """A process that leaves a run of a method behind."""
    with launched(database) as dbos:
        shops = Shops(dbos)
        shops.fails = True
        with pytest.raises(Interruption):
            start(dbos.register(make(shops), name=name))


def test_a_run_is_continued_on_the_instance_of_its_name(database: TestDatabase) -> None:
    interrupted(
        database,
        lambda shops: shops.Shop("eu", PRICES),
        "eu",
        lambda shop: shop.order.options(workflow_id="w")("tea"),
    )
    dbos = DBOS(database.make_engine(), name="shop")
    shops = Shops(dbos)
    dbos.register(shops.Shop("us", {}), name="us")
    dbos.register(shops.Shop("europe", {}), name="eu")
    with dbos.launch():
        # The price is recorded, the region is the new instance's.
        assert dbos.handle("w").result(PATIENCE) == "europe: 3"


def test_a_process_without_the_instance_leaves_its_runs_alone_until_it_is_registered(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(
        database,
        lambda shops: shops.Shop("eu", PRICES),
        "eu",
        lambda shop: shop.order.options(workflow_id="w")("tea"),
    )
    with caplog.at_level(logging.WARNING, "dbos_orm"), launched(database) as dbos:
        shops = Shops(dbos)
        dbos.register(shops.Shop("us", {}), name="us")
        assert dbos.named("Shop.greet").start("you").result(PATIENCE) == "hello you"
        assert dbos.handle("w").status() is WorkflowState.ENQUEUED
        dbos.register(shops.Shop("eu", PRICES), name="eu")  # after the launch
        assert dbos.handle("w").result(PATIENCE) == "eu: 3"
    assert "1 of Shop.order of Shops.__init__.<locals>.Shop 'eu'" in caplog.text


def test_an_inherited_method_is_continued_on_an_instance_of_the_subclass(database: TestDatabase) -> None:
    interrupted(
        database,
        lambda shops: shops.Discounter("eu", PRICES),
        "eu",
        lambda shop: shop.order_both.options(workflow_id="w")("tea", "milk"),
    )
    dbos = DBOS(database.make_engine(), name="shop")
    shops = Shops(dbos)
    dbos.register(shops.Shop("wrong", PRICES), name="eu")
    dbos.register(shops.Discounter("eu", PRICES), name="eu")
    with dbos.launch():
        assert dbos.handle("w").result(PATIENCE) == ("cheap eu: 2", "cheap eu: 3")
        row = row_of(dbos, "w")
        assert (row.name, row.class_name) == ("Shop.order_both", "Shops.__init__.<locals>.Discounter")


def test_a_run_that_a_bound_process_started_is_claimed_by_one_with_the_instance(database: TestDatabase) -> None:
    bound = DBOS(database.make_engine(), name="shop")
    web = bound.register(Shops(bound).Shop("eu", PRICES), name="eu")
    bound.bind(database.make_engine())
    handle = web.order.start("tea")
    assert row_of(bound, handle.workflow_id).version is None
    with launched(database) as dbos:
        shops = Shops(dbos)
        dbos.register(shops.Discounter("us", PRICES), name="eu")
        dbos.register(shops.Shop("us", PRICES), name="us")
        assert shops.Shop.greet.start("you").result(PATIENCE)
        assert handle.status() is WorkflowState.ENQUEUED
        dbos.register(shops.Shop("europe", PRICES), name="eu")
        assert handle.result(PATIENCE) == "europe: 3"


def test_a_row_without_an_instance_is_no_method(database: TestDatabase) -> None:
    interrupted(
        database,
        lambda shops: shops.Shop("eu", PRICES),
        "eu",
        lambda shop: shop.order.options(workflow_id="w")("tea"),
    )
    engine = database.make_engine()
    with Session(engine) as session, session.begin():
        session.execute(update(WorkflowStatus).values(class_name=None, config_name=None))
    with launched(database) as dbos:
        dbos.register(Shops(dbos).Shop("eu", PRICES), name="eu")
        runnable = dbos._runtime.application.registry.runnable()
        with engine.connect() as connection:
            assert ownership.count_stranded(connection, "shop", runnable) == {"Shop.order": 1}


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


# -- the claim -----------------------------------------------------------------------------------


def test_a_claim_with_many_methods_is_led_by_the_index(postgresql_database: TestDatabase) -> None:
    runnable = [Runnable(f"name {n}", "1") for n in range(20)]
    runnable += [Runnable(f"method {n}", "1", "Shop", region) for n in range(20) for region in ("eu", "us")]
    claimant = ownership.Claimant("shop", "me", "token", runnable)
    with launched(postgresql_database) as dbos:
        binding = dbos._runtime.bound("test")
        with binding.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO dbos_workflow_status (workflow_id, application, name, version, status, queue,"
                    " class_name, config_name) SELECT 'w' || n, 'shop', 'method ' || n % 100, '1', 'ENQUEUED',"
                    " '_dbos_internal', 'Shop', 'eu' FROM generate_series(1, 20000) n"
                )
            )
            connection.execute(text("ANALYZE dbos_workflow_status"))
        sent: list[str] = []
        event.listen(binding.engine, "before_cursor_execute", partial(_explain, sent))
        with binding.engine.connect() as connection:
            claimed = ownership.claim_enqueued(connection, binding.dialect, claimant, "_dbos_internal", limit=5)
            connection.rollback()
    assert len(claimed) == 5
    assert "Seq Scan on dbos_workflow_status" not in sent[0]
    assert "ix_dbos_workflow_status_claim" in sent[0]


def _explain(plans: list[str], connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
    cursor.execute("EXPLAIN ANALYZE " + statement, parameters)
    plans.append("\n".join(row[0] for row in cursor.fetchall()))
