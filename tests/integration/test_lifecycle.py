"""Made, bound, launched, shut down, and launched again."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import scoped_session, sessionmaker

from dbos_orm import DBOS, Config, WorkflowState
from dbos_orm._workflows import Workflow
from dbos_orm.models import Executor
from tests.databases import POSTGRESQL, TestDatabase
from tests.integration.shop import SOON, Interruption, OutOfStockError, Statements, count_of, launched
from tests.processes import PATIENCE, Processes, eventually


def test_a_bound_application_starts_and_asks_without_a_thread(database: TestDatabase) -> None:
    before = set(threading.enumerate())
    dbos = DBOS(database.make_engine(), name="shop", config=SOON).bind(database.make_engine())

    @dbos.workflow
    def work(number: int) -> int:
        return number

    handle = work.options(workflow_id="w").start(7)
    assert handle.created
    assert not work.options(workflow_id="w").start(7).created
    assert handle.status() is WorkflowState.ENQUEUED
    assert set(threading.enumerate()) == before
    assert repr(dbos) == "<DBOS 'shop' bound>"


def test_what_a_bound_application_starts_a_launched_one_runs(database: TestDatabase) -> None:
    def made() -> tuple[DBOS, Workflow[[int], int]]:
        dbos = DBOS(name="shop", config=SOON)

        @dbos.workflow(name="work")
        def work(number: int) -> int:
            return 2 * number

        return dbos, work

    (web, work), (worker, _) = made(), made()
    web.bind(database.make_engine())
    with worker.launch(database.make_engine()):
        assert work.start(7).result(PATIENCE) == 14


def test_launch_returns_the_application(database: TestDatabase) -> None:
    dbos = DBOS(name="shop")
    assert not dbos.is_launched
    with dbos.launch(database.make_engine()) as application:
        assert application is dbos
        assert repr(application) == "<DBOS 'shop' launched>"
    assert repr(dbos) == "<DBOS 'shop' unbound>"


@pytest.mark.parametrize("kind", ["engine", "sessionmaker", "scoped_session", "URL", "text"])
def test_every_kind_of_bind_works(database: TestDatabase, kind: str) -> None:
    engine = database.make_engine()
    bind: Any = {
        "engine": engine,
        "sessionmaker": sessionmaker(engine),
        "scoped_session": scoped_session(sessionmaker(engine)),
        "URL": database.url,
        "text": database.url.render_as_string(hide_password=False),
    }[kind]
    with DBOS(bind, name="shop") as dbos:

        @dbos.workflow
        def work() -> str:
            return "done"

        assert work() == "done"


def test_the_users_engine_is_left_open(database: TestDatabase) -> None:
    engine = database.make_engine()
    statements = Statements(engine, boundaries=True)
    with launched(database, engine=engine):
        pass
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    assert statements.sent[-2:] == ["SELECT 1", "ROLLBACK"]


def test_an_application_can_be_launched_again(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=SOON)

    @dbos.workflow
    def work(number: int) -> int:
        return number

    for number in range(3):
        with dbos.launch():
            assert work(number) == number
            assert work.start(number).result(PATIENCE) == number


def test_shutdown_is_harmless_at_any_time(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop")
    dbos.shutdown()
    dbos.launch()
    dbos.shutdown()
    dbos.shutdown()


def test_shutdown_waits_for_what_runs(database: TestDatabase) -> None:
    with launched(database) as dbos:
        is_running = threading.Event()

        @dbos.workflow
        def work() -> str:
            is_running.set()
            for _ in range(5):
                dbos.sleep(0.02)
            return "done"

        handle = work.start()
        assert is_running.wait(PATIENCE)
    dbos.bind(database.make_engine())
    assert handle.status() is WorkflowState.SUCCESS


def test_shutdown_hands_over_what_does_not_end_in_time(database: TestDatabase) -> None:
    may_go_on, is_running = threading.Event(), threading.Event()
    ran: list[int] = []
    dbos = DBOS(database.make_engine(), name="shop", config=SOON)

    @dbos.step
    def slow() -> str:
        ran.append(1)
        is_running.set()
        assert may_go_on.wait(PATIENCE)
        return f"result {len(ran)}"

    @dbos.workflow
    def work() -> str:
        return slow()

    dbos.launch()
    handle = work.start()
    assert is_running.wait(PATIENCE)
    dbos.shutdown(timeout=0)
    with dbos.launch():
        eventually(lambda: len(ran) == 2)
        may_go_on.set()
        assert handle.result(PATIENCE) == "result 2"
        assert handle.describe().recovery_attempts == 0


def test_leaving_by_an_interrupt_does_not_wait(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=SOON)

    @dbos.workflow
    def nap() -> None:
        dbos.sleep(PATIENCE * 10)

    def leave() -> None:
        with dbos:
            nap.options(workflow_id="nap").start()
            raise Interruption

    with pytest.raises(Interruption):
        leave()
    dbos.bind(database.make_engine())
    assert dbos.handle("nap").status() is WorkflowState.ENQUEUED


def test_nothing_of_a_launch_is_left(database: TestDatabase) -> None:
    before = set(threading.enumerate())
    with launched(database) as dbos:

        @dbos.workflow
        def work() -> None: ...

        work()
        assert count_of(database, Executor) == 1
    assert count_of(database, Executor) == 0
    ours = [thread for thread in set(threading.enumerate()) - before if "worker" not in thread.name]
    eventually(lambda: not [thread for thread in ours if thread.is_alive()])


def test_the_executor_carries_the_configured_name(database: TestDatabase) -> None:
    with launched(database, config=Config(executor_id="web-1")) as dbos:

        @dbos.workflow
        def work() -> None: ...

        work.options(workflow_id="w")()
        executor_id = dbos.handle("w").describe().executor_id
        assert executor_id is not None
        assert executor_id.startswith("web-1-")


def test_the_configured_version_replaces_the_computed_one(database: TestDatabase) -> None:
    with launched(database, config=Config(application_version="2026-11")) as dbos:

        @dbos.workflow
        def usual() -> None: ...

        @dbos.workflow(version="7")
        def own() -> None: ...

        assert (usual.version, own.version) == ("2026-11", "7")


def test_the_start_up_line_says_what_was_launched(database: TestDatabase, caplog: pytest.LogCaptureFixture) -> None:
    dbos = DBOS(database.make_engine(), name="shop")

    @dbos.workflow
    def work() -> None: ...

    dbos.step(len, name="length")
    with caplog.at_level(logging.INFO, "dbos_orm"), dbos:
        pass
    (line,) = [message for message in caplog.messages if "launched as" in message]
    assert line.startswith("application 'shop' launched as ")
    assert line.endswith(": 1 workflows, 1 steps and transactions")
    password = database.url.password
    assert database.backend != POSTGRESQL or not password or password not in line


def test_workflows_that_nobody_here_can_continue_are_reported(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    def launch(version: str) -> tuple[DBOS, Workflow[[], None]]:
        dbos = DBOS(database.make_engine(), name="shop", config=SOON)

        @dbos.workflow(name="nap", version=version)
        def nap() -> None:
            dbos.sleep(PATIENCE * 10)

        return dbos.launch(), nap

    old, nap = launch("1")
    handle = nap.start()
    old.shutdown(0)
    with caplog.at_level(logging.WARNING, "dbos_orm"):
        new, _ = launch("2")
    try:
        assert [message for message in caplog.messages if message.startswith("1 stored workflows wait")] != []
        assert new.handle(handle.workflow_id).status() is WorkflowState.ENQUEUED
    finally:
        new.shutdown(0)


def test_modules_are_imported_at_launch(
    database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_at_launch.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    with DBOS(database.make_engine(), name="shop", modules=["imported_at_launch"]):
        assert "imported_at_launch" in sys.modules


ORDERS = """
from tests.integration import test_lifecycle

@test_lifecycle.REGISTERING[-1].workflow(name="orders.place")
def place() -> str:
    return "placed"
"""

REGISTERING: list[DBOS] = []


def test_a_module_that_was_forgotten_is_seen_at_the_start(
    database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "shop_orders.py").write_text(ORDERS)
    sys.modules.pop("shop_orders", None)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(f"{__name__}.REGISTERING", [DBOS(database.make_engine(), name="shop")])
    handle = importlib.import_module("shop_orders").place.start()  # bound, not launched: no version is known yet
    with caplog.at_level(logging.INFO, "dbos_orm"), DBOS(database.make_engine(), name="shop"):
        assert ": 0 workflows, 0 steps and transactions" in caplog.text
        assert "1 stored workflows wait" in caplog.text
        assert "1 of orders.place" in caplog.text
    caplog.clear()
    del sys.modules["shop_orders"]
    REGISTERING.append(DBOS(database.make_engine(), name="shop", modules=["shop_orders"], config=SOON))
    with caplog.at_level(logging.INFO, "dbos_orm"), REGISTERING[-1] as dbos:
        assert ": 1 workflows, 0 steps and transactions" in caplog.text
        assert "stored workflows wait" not in caplog.text
        assert dbos.handle(handle.workflow_id).result(PATIENCE) == "placed"


def test_two_instances_live_in_one_process(database: TestDatabase) -> None:
    with launched(database, name="shop") as shop, launched(database, name="bank") as bank:

        @bank.workflow
        def book(amount: int) -> tuple[str, int]:
            return bank.current.workflow_id, amount

        @shop.workflow
        def pay(amount: int) -> tuple[str, int]:
            return book.options(workflow_id="booking")(amount)

        assert pay(7) == ("booking", 7)
        assert bank.handle("booking").describe().application == "bank"


def test_an_error_at_launch_leaves_an_application_that_can_be_launched(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    dbos = DBOS(database.make_engine(), name="shop", modules=["no_such_module"])
    with pytest.raises(ModuleNotFoundError):
        dbos.launch()
    assert not dbos.is_launched
    monkeypatch.setattr(dbos, "_modules", ())
    with dbos.launch():
        assert dbos.is_launched


DEFAULT_DATABASE = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from dbos_orm import DBOS

dbos = DBOS(name="shop")

@dbos.workflow
def work():
    return "done"

with dbos.launch():
    print(work())
"""


def test_nothing_given_is_a_migrated_sqlite_file_and_a_line_that_says_so(processes: Processes, tmp_path: Path) -> None:
    child = processes.start_script(DEFAULT_DATABASE, environment={"DBOS_DATABASE_URL": ""})
    lines = child.succeed()
    assert lines[-1] == "done" or "done" in lines
    assert any("sqlite:///dbos.sqlite" in line and "DBOS_DATABASE_URL" in line for line in lines)
    assert (tmp_path / "dbos.sqlite").exists()


def test_the_variable_names_the_database(database: TestDatabase, processes: Processes, tmp_path: Path) -> None:
    url = database.url.render_as_string(hide_password=False)
    child = processes.start_script(DEFAULT_DATABASE, environment={"DBOS_DATABASE_URL": url})
    assert "done" in child.succeed()
    assert not (tmp_path / "dbos.sqlite").exists()


def test_a_failed_workflow_in_the_background_is_logged(dbos: DBOS, caplog: pytest.LogCaptureFixture) -> None:
    @dbos.workflow
    def fail() -> None:
        raise OutOfStockError("tea", left=1)

    with caplog.at_level(logging.WARNING, "dbos_orm"):
        handle = fail.options(workflow_id="w").start()
        with pytest.raises(OutOfStockError):
            handle.result(PATIENCE)
        eventually(lambda: caplog.records != [])
    (record,) = caplog.records
    assert vars(record)["workflow_id"] == "w"
    assert "no tea left but 1" in record.getMessage()
