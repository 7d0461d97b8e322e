"""Workflows: called, started, under a known ID, with children."""

from __future__ import annotations

import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from dbos_orm import DBOS, Config, WorkflowState
from dbos_orm._workflows import Workflow
from dbos_orm.errors import ConflictingWorkflowError, WorkflowExistsError
from tests.databases import TestDatabase
from tests.integration.shop import SOON, OutOfStockError, launched
from tests.processes import PATIENCE, eventually


def test_a_direct_call_returns_the_result_in_the_callers_thread(dbos: DBOS) -> None:
    @dbos.workflow
    def where(number: int) -> tuple[int, int]:
        return number, threading.get_ident()

    assert where(7) == (7, threading.get_ident())


def test_parentheses_make_no_difference(dbos: DBOS) -> None:
    @dbos.step()
    def double(number: int) -> int:
        return 2 * number

    @dbos.workflow()
    def with_them(number: int) -> int:
        return double(number)

    @dbos.workflow
    def without(number: int) -> int:
        return double(number)

    assert (with_them(2), without(3)) == (4, 6)


def test_a_decorated_function_still_looks_like_itself(dbos: DBOS) -> None:
    @dbos.workflow(name="checkout")
    def pay(order_id: int, *, gift: bool = False) -> str:
        """Pay for an order."""
        return f"{order_id}{gift}"

    assert (vars(pay)["__name__"], pay.__doc__, pay.name) == ("pay", "Pay for an order.", "checkout")
    assert repr(pay) == "<Workflow 'checkout' of 'shop'>"
    assert pay(3, gift=True) == "3True"


def test_static_methods_and_closures_can_be_workflows(dbos: DBOS) -> None:
    factor = 3

    class Shop:
        @staticmethod
        @dbos.workflow
        def total(number: int) -> int:
            return factor * number

    assert Shop.total(4) == 12
    assert Shop.total.name.endswith("Shop.total")


def test_a_started_workflow_runs_in_the_background(dbos: DBOS) -> None:
    @dbos.workflow
    def where() -> int:
        return threading.get_ident()

    handle = where.start()
    assert handle.created
    assert handle.result(PATIENCE) != threading.get_ident()
    assert handle.status() is WorkflowState.SUCCESS


def test_a_started_workflow_has_arguments_of_its_own(dbos: DBOS) -> None:
    may_go_on = threading.Event()

    @dbos.workflow
    def count(items: list[str]) -> int:
        assert may_go_on.wait(PATIENCE)
        return len(items)

    basket = ["tea"]
    handle = count.start(basket)
    basket.append("milk")
    may_go_on.set()
    assert handle.result(PATIENCE) == 1


def test_a_made_up_id_is_a_uuid_that_sorts_by_time(dbos: DBOS) -> None:
    @dbos.workflow
    def nothing() -> None: ...

    made = [nothing.start().workflow_id for _ in range(5)]
    assert made == sorted(made)
    assert {uuid.UUID(each).version for each in made} == {7}


# -- a known ID ----------------------------------------------------------------------------------


def test_a_known_id_gives_the_existing_workflow(dbos: DBOS) -> None:
    runs: list[int] = []

    @dbos.workflow
    def pay(order_id: int) -> int:
        runs.append(order_id)
        return len(runs)

    chosen = pay.options(workflow_id="order-17")
    first = chosen.start(17)
    assert (first.created, first.result(PATIENCE)) == (True, 1)
    second = chosen.start(17)
    assert (second.created, second.result(PATIENCE)) == (False, 1)
    assert chosen(17) == 1
    assert runs == [17]


def test_a_direct_call_of_a_failed_id_raises_its_error_again(dbos: DBOS) -> None:
    @dbos.workflow
    def pay() -> None:
        raise OutOfStockError("tea", left=0)

    for _ in range(2):
        with pytest.raises(OutOfStockError, match="no tea left but 0"):
            pay.options(workflow_id="order-17")()


def test_on_existing_raise_refuses_a_known_id(dbos: DBOS) -> None:
    @dbos.workflow
    def pay() -> None: ...

    once = pay.options(workflow_id="order-17", on_existing="raise")
    once()
    for again in (once, once.start):
        with pytest.raises(WorkflowExistsError, match="'order-17' exists already") as caught:
            again()
        assert caught.value.workflow_id == "order-17"


def test_other_arguments_under_one_id_give_one_warning(dbos: DBOS, caplog: pytest.LogCaptureFixture) -> None:
    @dbos.workflow
    def pay(order_id: int) -> int:
        return order_id

    chosen = pay.options(workflow_id="order-17")
    chosen(17)
    with caplog.at_level(logging.WARNING, "dbos_orm"):
        assert chosen(17) == 17
        assert caplog.messages == []
        assert chosen.start(18).result(PATIENCE) == 17
    assert len(caplog.messages) == 1
    assert "'order-17' exists with other arguments" in caplog.messages[0]


def test_another_function_under_one_id_is_refused(dbos: DBOS) -> None:
    @dbos.workflow(name="pay")
    def pay() -> None: ...

    @dbos.workflow(name="ship")
    def ship() -> None: ...

    pay.options(workflow_id="order-17")()
    for start in (ship.options(workflow_id="order-17"), ship.options(workflow_id="order-17").start):
        with pytest.raises(ConflictingWorkflowError) as caught:
            start()
        error = caught.value
        assert (error.field, error.recorded, error.given) == ("name", "pay", "ship")


def test_another_application_under_one_id_is_refused(database: TestDatabase) -> None:
    with launched(database, name="shop") as shop, launched(database, name="bank") as bank:
        for application in (shop, bank):

            @application.workflow(name="pay")
            def pay(who: str) -> str:
                return who

            application_pay = pay.options(workflow_id="order-17")
            if application is shop:
                assert application_pay("shop") == "shop"
                continue
            with pytest.raises(ConflictingWorkflowError) as caught:
                application_pay("bank")
            error = caught.value
            assert (error.field, error.recorded, error.given) == ("application", "shop", "bank")


def test_two_applications_on_one_database_do_not_run_each_others_workflows(database: TestDatabase) -> None:
    def made(name: str) -> tuple[DBOS, Workflow[[], str]]:
        application = DBOS(database.make_engine(), name=name, config=SOON)

        @application.workflow(name="pay", version="1")
        def pay() -> str:
            return application.name

        return application, pay

    (shop, shop_pay), (bank, bank_pay) = made("shop"), made("bank")
    shop.bind(database.make_engine())
    bank.bind(database.make_engine())
    waiting = shop_pay.start()
    next_in_line = bank_pay.start()
    with bank:
        assert next_in_line.result(PATIENCE) == "bank"
        assert waiting.status() is WorkflowState.ENQUEUED
    with shop:
        assert waiting.result(PATIENCE) == "shop"


def test_concurrent_direct_calls_of_one_id_run_it_once(dbos: DBOS) -> None:
    runs: list[int] = []
    together = threading.Barrier(8)

    @dbos.workflow
    def pay(order_id: int) -> int:
        runs.append(order_id)
        return order_id

    def call(_: int) -> int:
        together.wait(PATIENCE)
        return pay.options(workflow_id="order-17")(17)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(call, range(8))) == [17] * 8
    assert runs == [17]


def test_a_second_direct_call_of_an_id_on_its_own_stack_raises(dbos: DBOS) -> None:
    @dbos.workflow
    def inner() -> None:
        outer.options(workflow_id="order-17")()

    @dbos.workflow
    def outer() -> str:
        with pytest.raises(ConflictingWorkflowError, match=r"'order-17'.*wait for itself"):
            inner()
        return "went on"

    assert outer.options(workflow_id="order-17")() == "went on"


# -- children ------------------------------------------------------------------------------------


def test_a_child_is_recorded_in_its_parent_under_an_id_made_of_its_step(dbos: DBOS) -> None:
    @dbos.workflow(name="ship")
    def ship(number: int) -> tuple[int, str | None]:
        return number, dbos.current.parent_id

    @dbos.workflow(name="pay")
    def pay() -> list[object]:
        handle = ship.start(1)
        return [handle.workflow_id, handle.result(), ship(2)]

    assert pay.options(workflow_id="p")() == ["p-1", (1, "p"), (2, "p")]
    steps = dbos.handle("p").steps()
    assert [(step.path, step.kind, step.name, step.child_id) for step in steps] == [
        ("1", "child", "ship", "p-1"),
        ("2", "result", "result", None),
        ("3", "child", "ship", "p-3"),
        ("4", "result", "result", None),
    ]
    assert dbos.handle("p-3").describe().parent_id == "p"


def test_a_child_may_have_an_id_of_its_own(dbos: DBOS) -> None:
    @dbos.workflow
    def ship(number: int) -> int:
        return number

    @dbos.workflow
    def pay() -> tuple[bool, bool, int]:
        chosen = ship.options(workflow_id="parcel")
        first, second = chosen.start(1), chosen.start(1)
        return first.created, second.created, second.result()

    assert pay() == (True, False, 1)


def test_a_childs_error_comes_back_to_its_parent_with_its_type(dbos: DBOS) -> None:
    @dbos.workflow
    def ship() -> None:
        raise OutOfStockError("tea", left=2)

    def start_and_wait() -> None:
        ship.start().result()

    @dbos.workflow
    def pay() -> list[tuple[str, int]]:
        caught = []
        for attempt in (ship, start_and_wait):
            try:
                attempt()
            except OutOfStockError as error:
                caught.append((error.item, error.left))
        return caught

    assert pay() == [("tea", 2), ("tea", 2)]


def test_sixty_four_parents_that_await_children_do_not_block_each_other(database: TestDatabase) -> None:
    with launched(database, config=Config(tick=0.05, worker_threads=64)) as dbos:
        all_run = threading.Barrier(64)

        @dbos.workflow
        def child(number: int) -> int:
            return number

        @dbos.workflow
        def parent(number: int) -> int:
            all_run.wait(PATIENCE)
            return child.start(number).result()

        handles = [parent.start(number) for number in range(64)]
        assert [handle.result(PATIENCE) for handle in handles] == list(range(64))


def test_more_workflows_than_threads_wait_for_a_thread(database: TestDatabase) -> None:
    with launched(database, config=Config(tick=0.05, worker_threads=64)) as dbos:
        all_run, started, lock = threading.Event(), [0], threading.Lock()

        @dbos.workflow
        def wait() -> int:
            with lock:
                started[0] += 1
            assert all_run.wait(PATIENCE)
            return threading.get_ident()

        @dbos.workflow
        def direct() -> str:
            return "at once"

        handles = [wait.start() for _ in range(70)]
        eventually(lambda: started[0] == 64)
        assert direct() == "at once"
        assert started[0] == 64
        all_run.set()
        assert len({handle.result(PATIENCE) for handle in handles}) <= 64
