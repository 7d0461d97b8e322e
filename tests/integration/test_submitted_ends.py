"""The end of a workflow that has submitted steps: none of them goes on behind it."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from dbos_orm import DBOS, Config, WorkflowState
from dbos_orm.errors import (
    NotLaunchedError,
    WorkflowCancelled,
    WorkflowCancelledError,
    WorkflowTimeoutError,
)
from tests.databases import TestDatabase
from tests.integration.shop import SOON, Held, OutOfStockError, launched
from tests.processes import PATIENCE, eventually

SHORT = 0.1
colour: ContextVar[str] = ContextVar("colour", default="none")


@pytest.mark.parametrize("how", ["returned", "raised"])
def test_a_workflow_does_not_end_while_a_submitted_step_works(dbos: DBOS, how: str) -> None:
    held, has_left = Held(), threading.Event()

    @dbos.step
    def fetch() -> str:
        held.hold()
        return "done"

    @dbos.workflow
    def work() -> None:
        fetch.submit()
        assert held.began.wait(PATIENCE)
        has_left.set()
        if how == "raised":
            raise OutOfStockError("tea", left=0)

    handle = work.start()
    assert has_left.wait(PATIENCE)
    with pytest.raises(TimeoutError):
        handle.result(SHORT)
    held.release.set()
    if how == "raised":
        with pytest.raises(OutOfStockError):
            handle.result(PATIENCE)
    else:
        assert handle.result(PATIENCE) is None
    assert [step.output for step in handle.steps()] == ["done"]


def test_an_error_that_nobody_asked_for_is_logged(dbos: DBOS, caplog: pytest.LogCaptureFixture) -> None:
    held = Held()

    @dbos.step
    def fail() -> None:
        held.hold()
        raise OutOfStockError("tea", left=0)

    @dbos.workflow
    def work() -> str:
        fail.submit()
        held.release.set()
        return "done"

    assert work.options(workflow_id="w")() == "done"
    assert [type(step.error) for step in dbos.handle("w").steps()] == [OutOfStockError]
    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert ["without awaiting a task that raised OutOfStockError" in message for message in messages] == [True]


def test_a_step_that_was_not_begun_is_left_out_when_the_workflow_raises(database: TestDatabase) -> None:
    held, ran = Held(), list[str]()
    with launched(database, config=Config(tick=0.05, worker_threads=1)) as dbos:

        @dbos.workflow
        def block() -> None:
            held.hold()

        @dbos.step
        def fetch() -> None:
            ran.append("fetch")

        @dbos.workflow
        def work() -> None:
            fetch.submit()
            raise OutOfStockError("tea", left=0)

        blocking = block.start()
        assert held.began.wait(PATIENCE)
        with pytest.raises(OutOfStockError):
            work()
        held.release.set()
        blocking.result(PATIENCE)
    assert ran == []


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize("waits", [True, False])
def test_an_ended_workflow_records_nothing_of_its_submitted_steps(dbos: DBOS, how: str, waits: bool) -> None:
    held, seen = Held(), list[str]()

    @dbos.step
    def fetch() -> None:
        held.hold()
        held.ended.append(dbos.current.is_cancelled)

    @dbos.workflow
    def work() -> None:
        future = fetch.submit()
        assert held.began.wait(PATIENCE)
        try:
            if waits:
                future.result()
        except WorkflowCancelled:
            seen.append("cancelled")
            raise

    handle = work.options(timeout=SHORT if how == "deadline" else None).start()
    assert held.began.wait(PATIENCE)
    if how == "cancel":
        handle.cancel()
    eventually(lambda: not waits or seen == ["cancelled"])
    run = dbos._runtime.bound("test").runs.get(handle.workflow_id)
    assert run is not None
    ended = threading.Event()
    run.interrupts.add(ended.set)
    while run.stop is None and not ended.wait(SHORT):
        run.expire_if_due()
    assert dbos._runtime.bound("test").runs.get(handle.workflow_id) is run
    held.release.set()
    with pytest.raises(WorkflowTimeoutError if how == "deadline" else WorkflowCancelledError):
        handle.result(PATIENCE)
    eventually(lambda: dbos._runtime.bound("test").runs.get(handle.workflow_id) is None)
    assert held.ended == [True]
    assert handle.steps() == []
    assert handle.status() is WorkflowState.CANCELLED


def test_who_interrupts_a_workflow_does_not_wait_for_its_steps(dbos: DBOS) -> None:
    held, runs = Held(), list[int]()

    @dbos.step
    def fetch(number: int) -> int:
        if number == 1:
            held.hold()
        held.ended.append(number)
        return number

    @dbos.workflow
    def work() -> int:
        runs.append(1)
        future = fetch.submit(len(runs))
        if len(runs) == 1:
            assert held.began.wait(PATIENCE)
            raise KeyboardInterrupt
        return future.result()

    with pytest.raises(KeyboardInterrupt):
        work.options(workflow_id="w")()
    assert held.ended == []
    assert dbos.handle("w").result(PATIENCE) == 2
    held.release.set()
    eventually(lambda: held.ended == [2, 1])
    assert [step.output for step in dbos.handle("w").steps()] == [2]


def test_a_shutdown_hands_over_a_workflow_that_waits_for_a_submitted_step(database: TestDatabase) -> None:
    held, runs = Held(), list[int]()
    dbos = DBOS(database.make_engine(), name="shop", config=SOON)

    @dbos.step
    def fetch() -> str:
        runs.append(1)
        if len(runs) == 1:
            held.hold()
        return f"run {len(runs)}"

    @dbos.workflow
    def work() -> str:
        return fetch.submit().result(PATIENCE)

    outcomes: list[object] = []

    def call() -> None:
        try:
            outcomes.append(work.options(workflow_id="w")())
        except NotLaunchedError as error:
            outcomes.append(type(error))

    dbos.launch()
    caller = threading.Thread(target=call)
    caller.start()
    assert held.began.wait(PATIENCE)
    dbos.shutdown(0)
    held.release.set()
    caller.join(PATIENCE)
    assert outcomes == [NotLaunchedError]
    with dbos.launch():
        assert dbos.handle("w").result(PATIENCE) == "run 2"
