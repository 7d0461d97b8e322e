"""Where durable operations may come from, and what each place is told that may not make them."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, current_run
from dbos_orm.errors import (
    NotInWorkflowError,
    StartInStepError,
    StepOutsideScopeError,
)
from tests.databases import TestDatabase
from tests.integration.shop import launched
from tests.processes import PATIENCE

# From Python 3.12 on, a fork of a process that has threads is warned about: that it may go wrong is the point.
FORKING = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

OUTSIDE: dict[str, Callable[[DBOS], object]] = {
    "dbos.now()": lambda dbos: dbos.now(),
    "dbos.sleep()": lambda dbos: dbos.sleep(1),
    "dbos.uuid()": lambda dbos: dbos.uuid(),
    "dbos.random": lambda dbos: dbos.random,
    "dbos.current": lambda dbos: dbos.current,
    "dbos.session": lambda dbos: dbos.session,
    "current_run()": lambda dbos: current_run(),
}


@pytest.mark.parametrize("operation", OUTSIDE)
def test_a_durable_operation_outside_a_workflow_is_refused(sqlite_database: TestDatabase, operation: str) -> None:
    with launched(sqlite_database) as dbos, pytest.raises(NotInWorkflowError) as caught:
        OUTSIDE[operation](dbos)
    assert caught.value.operation == operation
    assert str(caught.value).startswith(f"{operation} was called outside a workflow; call it from")


@pytest.mark.parametrize("operation", OUTSIDE)
def test_the_context_ends_with_the_workflow(sqlite_database: TestDatabase, operation: str) -> None:
    with launched(sqlite_database) as dbos:

        @dbos.workflow
        def work() -> None: ...

        work()
        with pytest.raises(NotInWorkflowError):
            OUTSIDE[operation](dbos)


def in_thread_with_context(call: Callable[[], object]) -> BaseException | None:
    """Call it in a thread that inherited the context, as some executors do; give what it raised."""
    raised: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            context.run(call)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    return raised[0] if raised else None


def test_a_stray_thread_is_refused_and_draws_no_number(dbos: DBOS) -> None:
    @dbos.step(name="charge")
    def charge() -> str | None:
        return dbos.current.step_id

    @dbos.transaction(name="reserve")
    def reserve(session: Session) -> None: ...

    @dbos.workflow(name="other")
    def other() -> None: ...

    operations: dict[str, Callable[[], object]] = {
        "charge": charge,
        "reserve": reserve,
        "other": other,
        "dbos.now()": dbos.now,
        "dbos.sleep()": lambda: dbos.sleep(1),
        "dbos.uuid()": dbos.uuid,
        "dbos.random": lambda: dbos.random,
        "result()": dbos.handle("w").result,
        "status()": dbos.handle("w").status,
    }

    @dbos.workflow
    def work() -> str | None:
        for operation, call in operations.items():
            error = in_thread_with_context(call)
            assert isinstance(error, StepOutsideScopeError), (operation, error)
            assert (error.operation, error.workflow_id) == (operation, "w")
            assert "a task or thread that it did not open" in str(error)
        started = in_thread_with_context(other.start)
        assert isinstance(started, StepOutsideScopeError)
        return charge()

    assert work.options(workflow_id="w")() == "1"


def test_a_thread_without_the_context_is_outside(dbos: DBOS) -> None:
    @dbos.step
    def where() -> str:
        try:
            return dbos.current.workflow_id
        except NotInWorkflowError:
            return "outside"

    @dbos.workflow
    def work() -> list[str]:
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(where()))
        thread.start()
        thread.join(PATIENCE)
        return seen

    assert work.options(workflow_id="w")() == ["outside"]
    assert dbos.handle("w").steps() == []


def test_a_start_inside_a_plain_step_is_refused(dbos: DBOS) -> None:
    @dbos.workflow(name="ship")
    def ship() -> None: ...

    refused: list[StartInStepError] = []

    @dbos.step(name="charge")
    def charge() -> None:
        for start in (ship, ship.start, ship.options(workflow_id="x").start):
            with pytest.raises(StartInStepError) as caught:
                start()
            refused.append(caught.value)

    @dbos.workflow
    def work() -> None:
        charge()

    work()
    assert [(error.name, error.step) for error in refused] == [("ship", "charge")] * 3
    assert "workflow 'ship' was started inside step 'charge', which may run more than once" in str(refused[0])


def test_a_step_asks_without_a_record(dbos: DBOS) -> None:
    @dbos.workflow
    def other() -> int:
        return 7

    other.options(workflow_id="o")()

    @dbos.step
    def look() -> tuple[int, bool]:
        dbos.sleep(0.001)
        return dbos.handle("o").result(), dbos.now().tzinfo is not None

    @dbos.workflow
    def work() -> tuple[int, bool]:
        return look()

    assert work.options(workflow_id="w")() == (7, True)
    assert len(dbos.handle("w").steps()) == 1


def test_the_logger_says_who_is_speaking(dbos: DBOS, caplog: pytest.LogCaptureFixture) -> None:
    @dbos.step
    def charge() -> None:
        dbos.current.logger.warning("in step")

    @dbos.workflow
    def work() -> None:
        current_run().logger.warning("in body")
        charge()

    work.options(workflow_id="w")()
    executor_id = dbos.handle("w").describe().executor_id
    told = [(record.getMessage(), vars(record)) for record in caplog.records]
    assert [(said, facts["workflow_id"], facts["step_id"], facts["executor_id"]) for said, facts in told] == [
        ("in body", "w", None, executor_id),
        ("in step", "w", "1", executor_id),
    ]


@FORKING
def test_a_forked_process_is_told_to_launch(database: TestDatabase) -> None:
    with launched(database) as dbos:

        @dbos.workflow
        def work() -> str:
            return "done"

        handle = work.start()
        handle.result(PATIENCE)
        told = in_fork(work)
        assert told.startswith(("NotLaunchedError", "ForkedProcessError")), told
        assert "launch" in told
        assert work() == "done"


@FORKING
def test_a_fork_in_a_workflow_cannot_go_on_with_it(database: TestDatabase) -> None:
    with launched(database) as dbos:

        @dbos.step
        def step() -> str:
            return "done"

        @dbos.workflow
        def work() -> str:
            return in_fork(step) + step()

        told = work()
    assert told.startswith("ForkedProcessError")
    assert "bind before forking and launch in the forked process" in told
    assert told.endswith("done")


@FORKING
def test_a_bound_application_may_be_used_after_a_fork(database: TestDatabase) -> None:
    dbos = DBOS(name="shop").bind(database.make_engine())

    @dbos.workflow
    def work() -> None: ...

    def start() -> str:
        return str(work.options(workflow_id="w").start().created)

    assert in_fork(start) == "True"
    assert not work.options(workflow_id="w").start().created


def in_fork(call: Callable[[], object]) -> str:
    """What the call gives or raises in a forked child, as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = str(call())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(pid, 0)
    return text


# -- asyncio -------------------------------------------------------------------------------------


async def test_a_stray_task_is_refused_and_draws_no_number(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step(name="charge")
    async def charge() -> str | None:
        return dbos.current.step_id

    @dbos.workflow(name="other")
    async def other() -> None: ...

    async def stray(call: Callable[[], Any]) -> None:
        await call()

    operations: dict[str, Callable[[], Any]] = {
        "charge": charge,
        "other": other,
        "dbos.now()": dbos.now,
        "dbos.sleep()": lambda: dbos.sleep(1),
        "result()": dbos.handle("w").result,
    }

    @dbos.workflow
    async def work() -> str | None:
        for operation, call in operations.items():
            with pytest.raises(StepOutsideScopeError) as caught:
                await asyncio.create_task(stray(call))
            assert (caught.value.operation, caught.value.workflow_id) == (operation, "w")
        return await charge()

    assert await work.options(workflow_id="w")() == "1"


async def test_direct_calls_in_a_gather_are_numbered_in_their_order(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    first_may_end, second_may_end = asyncio.Event(), asyncio.Event()

    @dbos.step
    async def where(awaits: int = 0) -> str | None:
        if awaits == 1:
            await first_may_end.wait()
        if awaits == 2:
            await second_may_end.wait()
            first_may_end.set()
        second_may_end.set()
        return dbos.current.step_id

    @dbos.workflow
    async def child(number: int) -> tuple[int, str]:
        await where()
        return number, dbos.current.workflow_id

    @dbos.workflow
    async def work() -> list[Any]:
        steps = await asyncio.gather(where(1), where(2), where())  # they end from the last to the first
        children = await asyncio.gather(child(1), child(2))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(where())
        return [*steps, *children, task.result()]

    assert await work.options(workflow_id="w")() == ["1", "2", "3", (1, "w-4"), (2, "w-6"), "8"]


async def test_direct_calls_of_everything_that_is_recorded_can_be_gathered(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.workflow
    async def child(number: int) -> int:
        return number

    @dbos.workflow
    async def work() -> list[int]:
        handles = await asyncio.gather(child.start(1), child.start(2))
        await asyncio.gather(dbos.sleep(0.01), dbos.sleep(0.02), dbos.now())
        return list(await asyncio.gather(*(handle.result() for handle in handles)))

    assert await work() == [1, 2]


async def test_a_sync_step_knows_its_run_in_its_thread(async_dbos: AsyncDBOS) -> None:
    dbos = async_dbos

    @dbos.step
    def where() -> tuple[str, str | None, bool]:
        return dbos.current.workflow_id, dbos.current.step_id, threading.current_thread() is threading.main_thread()

    @dbos.workflow
    async def work() -> tuple[str, str | None, bool]:
        return await where()

    assert await work.options(workflow_id="w")() == ("w", "1", False)
