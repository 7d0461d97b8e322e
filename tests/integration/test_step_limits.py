"""Time limits of steps: an attempt that is late has failed, whatever its code does afterwards."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextvars import ContextVar
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from dbos_orm import DBOS, Retry
from dbos_orm.errors import MaxStepRetriesExceededError, StepTimeoutError, WorkflowCancelledError
from dbos_orm.models import StepAttempt
from tests.databases import TestDatabase
from tests.integration.shop import Held, Interruption, Item, count_of, names_of_items
from tests.processes import PATIENCE, eventually

SHORT = 0.05
TWICE = Retry(max_attempts=2, backoff=0)
colour: ContextVar[str] = ContextVar("colour", default="none")


def test_a_late_attempt_has_failed_and_what_it_returns_is_dropped(dbos: DBOS) -> None:
    held = Held()

    @dbos.step(name="fetch", timeout=SHORT)
    def fetch() -> str:
        held.hold()
        held.ended.append("late")
        return "late"

    @dbos.workflow
    def work() -> str:
        try:
            return fetch()
        except StepTimeoutError as error:
            return f"{error.step} {error.timeout.total_seconds()}"

    assert work.options(workflow_id="w")() == "fetch 0.05"
    held.release.set()
    eventually(lambda: held.ended == ["late"])
    (step,) = dbos.handle("w").steps()
    assert isinstance(step.error, StepTimeoutError)
    assert (step.error.step, step.error.timeout, step.attempts) == ("fetch", timedelta(seconds=SHORT), 1)


def test_the_recorded_time_limit_is_what_a_replay_gets(dbos: DBOS) -> None:
    ran: list[int] = []
    held = Held()

    @dbos.step(timeout=SHORT)
    def fetch() -> None:
        ran.append(1)
        held.hold()

    @dbos.workflow
    def work() -> str:
        with pytest.raises(StepTimeoutError):
            fetch()
        if len(ran) == 1:
            ran.append(2)
            raise Interruption
        return "done"

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    assert dbos.handle("w").result(PATIENCE) == "done"
    assert ran == [1, 2]
    held.release.set()


def test_a_late_attempt_is_followed_by_another_one(dbos: DBOS, database: TestDatabase) -> None:
    held = Held()

    @dbos.step(timeout=SHORT, retry=TWICE)
    def fetch() -> int:
        if dbos.current.attempt == 1:
            held.hold()
        return dbos.current.attempt

    @dbos.workflow
    def work() -> int:
        return fetch()

    assert work.options(workflow_id="w")() == 2
    assert count_of(database, StepAttempt, workflow_id="w") == 1
    held.release.set()


def test_attempts_that_are_all_late_are_told_of(dbos: DBOS) -> None:
    held = Held()

    @dbos.step(timeout=SHORT, retry=TWICE)
    def fetch() -> None:
        held.hold()

    @dbos.workflow
    def work() -> None:
        fetch()

    with pytest.raises(MaxStepRetriesExceededError) as caught:
        work()
    assert [type(error) for error in caught.value.errors] == [StepTimeoutError] * 2
    held.release.set()


def test_the_code_of_a_late_attempt_learns_of_it_and_does_nothing_durable(dbos: DBOS, database: TestDatabase) -> None:
    held = Held()

    @dbos.transaction
    def add(session: Session, name: str) -> None:
        session.add(Item(name=name))

    @dbos.step
    def inner() -> None:
        held.ended.append("inner")

    def attempt(call: object) -> None:
        assert callable(call)
        try:
            call()
        except StepTimeoutError as error:
            held.ended.append(error.step)

    @dbos.step(name="fetch", timeout=SHORT)
    def fetch() -> None:
        held.ended.append(dbos.current.is_cancelled)
        held.hold()
        held.ended.append(dbos.current.is_cancelled)
        for call in (lambda: dbos.sleep(0), lambda: add("tea"), inner):
            attempt(call)
        held.ended.append("end")

    @dbos.workflow
    def work() -> None:
        with pytest.raises(StepTimeoutError):
            fetch()

    work()
    held.release.set()
    eventually(lambda: held.ended[-1] == "end")
    assert held.ended == [False, True, "fetch", "fetch", "fetch", "end"]
    assert names_of_items(database) == []


def test_the_time_limit_ends_a_sleep_in_the_step(dbos: DBOS) -> None:
    ended = threading.Event()

    @dbos.step(timeout=SHORT)
    def nap() -> None:
        try:
            dbos.sleep(PATIENCE * 10)
        finally:
            ended.set()

    @dbos.workflow
    def work() -> None:
        nap()

    with pytest.raises(StepTimeoutError):
        work()
    assert ended.wait(PATIENCE)


def test_only_a_step_with_a_time_limit_has_a_thread_of_its_own(dbos: DBOS) -> None:
    @dbos.step
    def look() -> tuple[bool, str, str | None]:
        return threading.current_thread() is here, colour.get(), dbos.current.step_id

    @dbos.workflow
    def work() -> list[tuple[bool, str, str | None]]:
        return [look(), look.options(timeout=PATIENCE)(), look.options(timeout=PATIENCE).options(timeout=None)()]

    here = threading.current_thread()
    token = colour.set("red")
    assert work() == [(True, "red", "1"), (False, "red", "2"), (True, "red", "3")]
    colour.reset(token)


def test_options_that_were_said_before_are_kept(dbos: DBOS) -> None:
    held = Held()

    @dbos.step(name="fetch", retry=TWICE)
    def fetch() -> None:
        held.hold()

    @dbos.workflow
    def work() -> None:
        fetch.options(timeout=SHORT)()

    with pytest.raises(MaxStepRetriesExceededError):
        work()
    assert fetch.options(retry=None).name == "fetch"
    held.release.set()


def test_the_time_limit_holds_for_plain_calls(dbos: DBOS) -> None:
    held = Held()

    @dbos.step(name="fetch", timeout=SHORT)
    def fetch() -> None:
        held.hold()

    @dbos.step
    def outer() -> str:
        with pytest.raises(StepTimeoutError):
            fetch()
        return "went on"

    @dbos.workflow
    def work() -> str:
        return outer()

    with pytest.raises(StepTimeoutError, match=r"step 'fetch' did not finish within 0\.05 s"):
        fetch()
    with pytest.raises(StepTimeoutError):
        DBOS(name="unbound").step(held.hold, timeout=SHORT)()
    assert work() == "went on"
    held.release.set()


def test_a_plain_call_learns_of_the_time_limits_around_it(dbos: DBOS) -> None:
    held = Held()

    @dbos.step(timeout=PATIENCE)
    def inner() -> None:
        held.hold()
        held.ended.append(dbos.current.is_cancelled)

    @dbos.step(name="outer", timeout=SHORT)
    def outer() -> None:
        inner()

    @dbos.workflow
    def work() -> None:
        with pytest.raises(StepTimeoutError, match="'outer'"):
            outer()

    work()
    held.release.set()
    eventually(lambda: held.ended == [True])


def test_a_plain_call_in_a_transaction_stays_on_the_thread_of_the_session(dbos: DBOS) -> None:
    @dbos.step(timeout=PATIENCE)
    def look() -> int:
        return threading.get_ident()

    @dbos.transaction
    def ask(session: Session) -> bool:
        return look() == threading.get_ident()

    @dbos.workflow
    def work() -> bool:
        return ask()

    assert work()


def test_a_cancelled_workflow_waits_for_its_step_no_longer_than_the_time_limit(dbos: DBOS) -> None:
    held = Held()

    @dbos.step(timeout=SHORT)
    def fetch() -> None:
        held.hold()

    @dbos.workflow
    def work() -> None:
        fetch()

    handle = work.start()
    assert held.began.wait(PATIENCE)
    handle.cancel()
    with pytest.raises(WorkflowCancelledError):
        handle.result(PATIENCE)
    eventually(lambda: not dbos._runtime.bound("test").runs.all())
    assert handle.steps() == []
    held.release.set()


def test_a_thread_that_was_given_up_does_not_keep_its_process() -> None:
    code = (
        "import threading\n"
        "from dbos_orm import DBOS\n"
        "from dbos_orm.errors import StepTimeoutError\n"
        "step = DBOS(name='shop').step(threading.Event().wait, name='wait', timeout=0.05)\n"
        "try:\n"
        "    step()\n"
        "except StepTimeoutError:\n"
        "    print('late')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (ended.stdout, ended.stderr) == ("late\n", "")
