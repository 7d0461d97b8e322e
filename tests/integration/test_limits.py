"""The end from outside: timeouts, deadlines and cancels, and what those get who wait."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from dbos_orm import DBOS, Config, WorkflowHandle, WorkflowState
from dbos_orm.errors import WorkflowCancelled, WorkflowCancelledError, WorkflowTimeoutError
from tests.databases import TestDatabase
from tests.integration.shop import SOON, OutOfStockError, launched
from tests.processes import PATIENCE, eventually

SHORT = 0.15


def test_a_timeout_cancels_before_the_next_step(database: TestDatabase) -> None:
    """And a long step that asks hears of it at once, not at the next tick."""
    with launched(database, config=Config(tick=60)) as dbos:
        ran: list[str] = []

        @dbos.step
        def slow() -> None:
            ran.append("slow")
            eventually(lambda: dbos.current.is_cancelled)

        @dbos.step
        def never() -> None:
            ran.append("never")

        @dbos.workflow
        def work() -> None:
            slow()
            never()

        with pytest.raises(WorkflowTimeoutError, match="'w' was cancelled at its deadline") as caught:
            work.options(workflow_id="w", timeout=SHORT)()
        assert caught.value.workflow_id == "w"
        assert ran == ["slow"]
        handle = dbos.handle("w")
        assert handle.status() is WorkflowState.CANCELLED
        with pytest.raises(WorkflowTimeoutError) as again:
            handle.result()
        assert again.value.deadline == caught.value.deadline
        assert caught.value.deadline is not None
        assert caught.value.deadline <= datetime.now(UTC)


def test_a_run_knows_the_deadline_of_its_row(dbos: DBOS) -> None:
    @dbos.workflow(timeout=60)
    def work() -> datetime | None:
        return dbos.current.deadline

    assert work.options(workflow_id="w")() == dbos.handle("w").describe().deadline


def test_a_timeout_wakes_a_sleeping_workflow(dbos: DBOS) -> None:
    unwound: list[type[BaseException]] = []

    @dbos.workflow(timeout=SHORT)
    def nap() -> None:
        try:
            dbos.sleep(PATIENCE)
        except BaseException as error:
            unwound.append(type(error))
            raise

    handle = nap.start()
    with pytest.raises(WorkflowTimeoutError):
        handle.result(PATIENCE / 2)
    eventually(lambda: unwound == [WorkflowCancelled])


def test_a_deadline_is_an_instant(dbos: DBOS) -> None:
    @dbos.workflow
    def nap() -> None:
        dbos.sleep(PATIENCE)

    deadline = datetime.now(UTC) + timedelta(seconds=SHORT)
    with pytest.raises(WorkflowTimeoutError) as caught:
        nap.options(deadline=deadline).start().result(PATIENCE / 2)
    assert caught.value.deadline is not None
    assert abs(caught.value.deadline - deadline) < timedelta(milliseconds=1)


def test_a_deadline_in_the_past_runs_no_step(dbos: DBOS) -> None:
    ran: list[int] = []

    @dbos.step
    def step() -> None:
        ran.append(1)

    @dbos.workflow
    def work() -> None:
        step()

    with pytest.raises(WorkflowTimeoutError):
        work.options(deadline=datetime.now(UTC) - timedelta(seconds=1))()
    assert ran == []


def test_an_option_replaces_or_lifts_the_decorators_timeout(dbos: DBOS) -> None:
    @dbos.workflow(timeout=60)
    def work() -> datetime | None:
        return dbos.current.deadline

    assert work() is not None
    assert work.options(timeout=None)() is None
    longer = work.options(timeout=timedelta(hours=1))()
    assert longer is not None
    assert longer > datetime.now(UTC) + timedelta(minutes=30)


def test_the_earlier_of_timeout_and_deadline_counts(dbos: DBOS) -> None:
    @dbos.workflow
    def work() -> datetime | None:
        return dbos.current.deadline

    now = datetime.now(UTC)
    assert work.options(timeout=3600, deadline=now + timedelta(seconds=60))() == now + timedelta(seconds=60)
    ends = work.options(timeout=60, deadline=now + timedelta(hours=1))()
    assert ends is not None
    assert ends < now + timedelta(minutes=30)


def test_a_timeout_of_a_waiting_workflow_begins_when_it_runs(database: TestDatabase) -> None:
    dbos = DBOS(name="shop", config=SOON).bind(database.make_engine())

    @dbos.workflow(timeout=60)
    def work() -> datetime | None:
        return dbos.current.deadline

    handle = work.start()
    assert handle.describe().deadline is None
    before = datetime.now(UTC)
    with dbos:
        deadline = handle.result(PATIENCE)
        assert deadline is not None
        assert deadline - before >= timedelta(seconds=59.9)


def test_children_inherit_the_deadline_unless_they_are_detached(dbos: DBOS) -> None:
    @dbos.workflow
    def child() -> datetime | None:
        return dbos.current.deadline

    @dbos.workflow
    def parent() -> list[bool]:
        mine = dbos.current.deadline
        detached = child.options(detached=True)
        earlier = child.options(timeout=30)()
        assert earlier is not None
        assert mine is not None
        return [child() == mine, child.start().result() == mine, detached() is None, detached.start().result() is None,
                earlier < mine]  # fmt: skip

    assert parent.options(timeout=60)() == [True] * 5


def test_a_child_at_its_parents_deadline_ends_with_it(dbos: DBOS) -> None:
    @dbos.workflow
    def child() -> None:
        dbos.sleep(PATIENCE)

    @dbos.workflow
    def parent() -> None:
        child.start().result()

    with pytest.raises(WorkflowTimeoutError):
        parent.options(workflow_id="p", timeout=2)()  # long enough for the child to be started on a busy machine
    eventually(lambda: dbos.handle("p-1").status() is WorkflowState.CANCELLED)


# -- cancel --------------------------------------------------------------------------------------


def test_a_cancel_reaches_a_workflow_before_its_next_step(dbos: DBOS) -> None:
    is_running, may_go_on, unwound = threading.Event(), threading.Event(), threading.Event()
    ran: list[str] = []

    @dbos.step
    def slow() -> None:
        is_running.set()
        assert may_go_on.wait(PATIENCE)

    @dbos.step
    def never() -> None:
        ran.append("never")

    @dbos.workflow
    def work() -> None:
        try:
            slow()
            never()
        finally:
            unwound.set()

    handle = work.start()
    assert is_running.wait(PATIENCE)
    handle.cancel()
    with pytest.raises(WorkflowCancelledError, match=r"was cancelled"):
        handle.result(PATIENCE)
    may_go_on.set()
    assert unwound.wait(PATIENCE)
    assert ran == []
    assert handle.status() is WorkflowState.CANCELLED


def test_a_cancelled_direct_call_raises_for_its_caller(dbos: DBOS) -> None:
    @dbos.workflow
    def work() -> None:
        dbos.handle("w").cancel()
        dbos.sleep(PATIENCE)

    with pytest.raises(WorkflowCancelledError) as caught:
        work.options(workflow_id="w")()
    assert caught.value.workflow_id == "w"


def test_a_function_that_swallows_the_cancel_changes_nothing(dbos: DBOS) -> None:
    @dbos.workflow
    def work() -> str:
        dbos.handle("w").cancel()
        try:
            dbos.sleep(PATIENCE)
        except BaseException:
            with pytest.raises(WorkflowCancelled):
                dbos.now()
        return "swallowed"

    with pytest.raises(WorkflowCancelledError):
        work.options(workflow_id="w")()
    assert dbos.handle("w").status() is WorkflowState.CANCELLED


def test_except_exception_does_not_swallow_a_cancel(dbos: DBOS) -> None:
    @dbos.workflow
    def work() -> str:
        dbos.handle("w").cancel()
        try:
            dbos.sleep(PATIENCE)
        except Exception:
            return "swallowed"
        return "not cancelled"

    with pytest.raises(WorkflowCancelledError):
        work.options(workflow_id="w")()


def tree(dbos: DBOS) -> tuple[WorkflowHandle[str], threading.Event]:
    """A parent that has a child, which has one; all wait for the event."""
    may_go_on, is_running = threading.Event(), threading.Event()

    @dbos.workflow
    def waits(depth: int) -> str:
        if depth:
            waits.start(depth - 1)
        else:
            is_running.set()
        while not may_go_on.is_set():
            dbos.sleep(0.02)
        return "done"

    handle = waits.options(workflow_id="t").start(2)
    assert is_running.wait(PATIENCE)
    return handle, may_go_on


def test_a_cancel_takes_children_along(dbos: DBOS) -> None:
    handle, may_go_on = tree(dbos)
    handle.cancel()
    for workflow_id in ("t", "t-1", "t-1-1"):
        assert dbos.handle(workflow_id).status() is WorkflowState.CANCELLED
        with pytest.raises(WorkflowCancelledError):
            dbos.handle(workflow_id).result(PATIENCE)
    may_go_on.set()


def test_a_cancel_spares_children_when_told_to(dbos: DBOS) -> None:
    handle, may_go_on = tree(dbos)
    handle.cancel(children=False)
    may_go_on.set()
    assert dbos.handle("t-1").result(PATIENCE) == "done"
    assert dbos.handle("t-1-1").result(PATIENCE) == "done"
    assert handle.status() is WorkflowState.CANCELLED


def test_a_cancel_has_no_effect_on_what_has_ended(dbos: DBOS) -> None:
    @dbos.workflow
    def work() -> str:
        return "done"

    @dbos.workflow
    def fail() -> None:
        raise OutOfStockError("tea", left=0)

    good, bad = work.start(), fail.start()
    assert good.result(PATIENCE) == "done"
    with pytest.raises(OutOfStockError):
        bad.result(PATIENCE)
    for handle in (good, bad):
        handle.cancel()
        handle.cancel()
    assert (good.result(), good.status()) == ("done", WorkflowState.SUCCESS)
    assert bad.status() is WorkflowState.ERROR


def test_a_cancel_from_another_application_object_is_heard(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def nap() -> None:
        dbos.sleep(PATIENCE)

    handle = nap.start()
    began = time.monotonic()
    DBOS(name="shop").bind(database.make_engine()).handle(handle.workflow_id).cancel()
    with pytest.raises(WorkflowCancelledError):
        handle.result(PATIENCE)
    eventually(lambda: not dbos._runtime.bound("test").runs.all())
    assert time.monotonic() - began < PATIENCE / 2


def test_a_waiting_workflow_can_be_cancelled(database: TestDatabase) -> None:
    ran: list[int] = []
    dbos = DBOS(name="shop", config=SOON).bind(database.make_engine())

    @dbos.workflow
    def work() -> int:
        ran.append(1)
        return 1

    waiting, next_in_line = work.start(), work.start()
    waiting.cancel()
    with dbos:
        assert next_in_line.result(PATIENCE) == 1
        with pytest.raises(WorkflowCancelledError):
            waiting.result()
    assert ran == [1]
