"""Runs of methods that are continued: on the instance of their name, by a process that has it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.orm import Session

from dbos_orm import DBOS, WorkflowState, WorkflowStatus
from dbos_orm._registry import Runnable
from dbos_orm._store import ownership
from dbos_orm._store.claiming import Claimant, Share, claim
from dbos_orm._store.entries import INTERNAL_QUEUE
from tests.databases import TestDatabase
from tests.integration.shop import Interruption, launched
from tests.integration.shops import PRICES, Shops, row_of
from tests.processes import PATIENCE


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


# -- the claim -----------------------------------------------------------------------------------


def test_a_claim_with_many_methods_is_led_by_the_index(postgresql_database: TestDatabase) -> None:
    runnable = [Runnable(f"name {n}", "1") for n in range(20)]
    runnable += [Runnable(f"method {n}", "1", "Shop", region) for n in range(20) for region in ("eu", "us")]
    claimant = Claimant("shop", "me", "token", runnable)
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
            claimed = claim(connection, binding.dialect, claimant, [Share(INTERNAL_QUEUE, runnable, 5)], limit=5)
            connection.rollback()
    assert len(claimed) == 5
    assert "Seq Scan on dbos_workflow_status" not in sent[0]
    assert "ix_dbos_workflow_status_claim" in sent[0]


def _explain(plans: list[str], connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
    cursor.execute("EXPLAIN ANALYZE " + statement, parameters)
    plans.append("\n".join(row[0] for row in cursor.fetchall()))
