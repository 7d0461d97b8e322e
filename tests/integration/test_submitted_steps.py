"""Steps that a synchronous workflow submits: side by side, numbered at the call, and ended before their workflow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar

import pytest
from sqlalchemy.orm import Session

from dbos_orm import DBOS, Config, Retry
from dbos_orm._futures import StepFuture
from dbos_orm.errors import (
    SessionMisuseError,
    StepTimeoutError,
)
from dbos_orm.handles import WorkflowHandle
from tests.databases import TestDatabase
from tests.integration.shop import Held, Interruption, Item, OutOfStockError, launched, names_of_items
from tests.processes import PATIENCE

SHORT = 0.1
colour: ContextVar[str] = ContextVar("colour", default="none")


def test_submitted_steps_run_side_by_side(dbos: DBOS) -> None:
    meeting = threading.Barrier(3)

    @dbos.step
    def meet(number: int) -> tuple[int, str | None]:
        meeting.wait(PATIENCE)
        return number, dbos.current.step_id

    @dbos.workflow
    def work() -> list[tuple[int, str | None]]:
        # A step that nobody has begun runs where its result is awaited: three need two threads more.
        return dbos.gather(*[meet.submit(number) for number in (7, 8, 9)])

    assert work.options(workflow_id="w")() == [(7, "1"), (8, "2"), (9, "3")]
    assert [step.path for step in dbos.handle("w").steps()] == ["1", "2", "3"]


def test_their_numbers_are_those_of_the_calls_however_they_finish(dbos: DBOS) -> None:
    is_second_done = threading.Event()

    @dbos.step(name="first")
    def first() -> str:
        assert is_second_done.wait(PATIENCE)
        return "first"

    @dbos.step(name="second")
    def second() -> str:
        is_second_done.set()
        return "second"

    @dbos.workflow
    def work() -> list[str]:
        futures = [first.submit(), second.submit()]
        return [future.result() for future in futures]

    assert work.options(workflow_id="w")() == ["first", "second"]
    assert [(step.path, step.name) for step in dbos.handle("w").steps()] == [("1", "first"), ("2", "second")]


def test_a_submitted_step_that_is_recorded_is_not_run_again(dbos: DBOS) -> None:
    ran: list[int] = []

    @dbos.step
    def count(number: int) -> int:
        ran.append(number)
        if ran == [1, 2]:
            raise Interruption
        return number

    @dbos.workflow
    def work() -> list[int]:
        first = count.submit(1)
        return [first.result(), count.submit(2).result()]

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    assert dbos.handle("w").result(PATIENCE) == [1, 2]
    assert ran == [1, 2, 2]


def test_submitted_transactions_commit_with_their_checkpoints(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.transaction
    def add(session: Session, name: str) -> str:
        session.add(Item(name=name))
        return name

    @dbos.workflow
    def work() -> list[str]:
        return dbos.gather(*[add.submit(name) for name in ("tea", "sugar", "milk")])

    assert work.options(workflow_id="w")() == ["tea", "sugar", "milk"]
    assert work.options(workflow_id="w")() == ["tea", "sugar", "milk"]
    assert names_of_items(database) == ["milk", "sugar", "tea"]
    assert [step.kind for step in dbos.handle("w").steps()] == ["transaction"] * 3


def test_their_errors_are_those_of_a_direct_call(dbos: DBOS) -> None:
    @dbos.step(retry=Retry(max_attempts=2, backoff=0))
    def succeed_at_second() -> int:
        if dbos.current.attempt == 1:
            raise OutOfStockError("tea", left=0)
        return dbos.current.attempt

    @dbos.step
    def fail() -> None:
        raise OutOfStockError("tea", left=1)

    @dbos.step(name="late", timeout=0.01)
    def late() -> None:
        dbos.sleep(PATIENCE)

    @dbos.workflow
    def work() -> int:
        with pytest.raises(OutOfStockError):
            fail.submit().result()
        future = late.submit()
        for _ in range(2):
            with pytest.raises(StepTimeoutError):
                future.result()
        assert future.done()
        return succeed_at_second.submit().result()

    assert work() == 2


def test_a_caller_without_patience_gets_the_builtin_timeout_error(dbos: DBOS) -> None:
    held = Held()

    @dbos.step
    def fetch() -> str:
        held.hold()
        return "done"

    @dbos.workflow
    def work() -> str:
        future = fetch.submit()
        with pytest.raises(TimeoutError, match=r"after 0\.01 s; it goes on"):
            future.result(timeout=0.01)
        assert not future.done()
        held.release.set()
        return future.result(timeout=PATIENCE)

    assert work() == "done"


# -- threads -------------------------------------------------------------------------------------


def test_more_steps_than_threads_do_not_wait_for_each_other(database: TestDatabase) -> None:
    with launched(database, config=Config(tick=0.05, worker_threads=1)) as dbos:

        @dbos.step
        def double(number: int) -> int:
            return 2 * number

        @dbos.workflow
        def work(number: int) -> int:
            return sum(dbos.gather(*[double.submit(number) for _ in range(3)]))

        handles = [work.start(number) for number in range(5)]
        assert [handle.result(PATIENCE) for handle in handles] == [0, 6, 12, 18, 24]


def test_a_direct_caller_does_not_wait_for_a_slot(database: TestDatabase) -> None:
    held = Held()
    with launched(database, config=Config(tick=0.05, worker_threads=1)) as dbos:

        @dbos.workflow
        def block() -> None:
            held.hold()

        @dbos.step
        def where() -> int:
            return threading.get_ident()

        @dbos.workflow
        def work() -> int:
            return where.submit().result()

        block.start()
        assert held.began.wait(PATIENCE)
        assert work() == threading.get_ident()
        held.release.set()


def test_steps_of_workflows_that_run_come_before_workflows_that_do_not(database: TestDatabase) -> None:
    order: list[str] = []
    with launched(database, config=Config(tick=0.05, worker_threads=1)) as dbos:

        @dbos.step
        def note(name: str) -> None:
            order.append(name)

        @dbos.workflow
        def work(name: str) -> None:
            if name == "first":
                last.append(work.start("last").workflow_id)
            note.submit(name).result(timeout=PATIENCE)

        last: list[str] = []
        work.start("first").result(PATIENCE)
        dbos.handle(last[0]).result(PATIENCE)
    assert order == ["first", "last"]


def test_elsewhere_it_is_a_plain_call_in_a_thread(dbos: DBOS) -> None:
    @dbos.step
    def look() -> tuple[bool, str]:
        return threading.get_ident() == here, colour.get()

    @dbos.step
    def outer() -> tuple[bool, str]:
        return look.submit().result()

    @dbos.transaction
    def count(session: Session) -> int:
        return session.query(Item).count()

    @dbos.workflow
    def work() -> tuple[bool, str]:
        return outer()

    here = threading.get_ident()
    token = colour.set("red")
    unbound = DBOS(name="unbound").step(look, name="look")
    assert [call() for call in (look.submit().result, unbound.submit().result, work)] == [(False, "red")] * 3
    assert count.submit().result() == 0
    colour.reset(token)


def test_nothing_is_submitted_in_a_transaction(dbos: DBOS) -> None:
    @dbos.step
    def look() -> None: ...

    @dbos.transaction
    def inner(session: Session) -> None: ...

    @dbos.transaction
    def add(session: Session, what: str) -> None:
        (look if what == "step" else inner).submit()

    @dbos.workflow
    def work() -> None:
        for what in ("step", "transaction"):
            with pytest.raises(SessionMisuseError, match="a session belongs to one thread"):
                add(what)

    work()


def test_nothing_is_awaited_in_a_transaction_that_might_wait_for_it(dbos: DBOS) -> None:
    let_go = threading.Event()

    @dbos.step
    def look() -> int:
        let_go.wait(PATIENCE)
        return 1

    @dbos.workflow
    def child() -> int:
        return look()

    @dbos.transaction
    def ask(session: Session, asked: StepFuture[int] | WorkflowHandle[int]) -> int:
        return asked.result()

    @dbos.workflow
    def work() -> list[int]:
        future, handle = look.submit(), child.start()
        for asked in (future, handle):
            with pytest.raises(SessionMisuseError, match=r"(before or after|in) the (transaction|workflow)"):
                ask(asked)
        let_go.set()
        return [future.result(), handle.result(), ask(future)]

    assert work() == [1, 1, 1]


def test_gather_asks_handles_and_submitted_steps_in_order(dbos: DBOS) -> None:
    @dbos.step
    def double(number: int) -> int:
        return 2 * number

    @dbos.workflow
    def child(number: int) -> int:
        if number < 0:
            raise OutOfStockError("tea", left=number)
        return number

    @dbos.workflow
    def work(number: int) -> list[int]:
        return dbos.gather(child.start(number), double.submit(5), child.start(7))

    assert work.options(workflow_id="w")(3) == [3, 10, 7]
    assert [(step.path, step.kind) for step in dbos.handle("w").steps()] == [
        ("1", "child"), ("2", "step"), ("3", "child"), ("4", "result"), ("5", "result"),
    ]  # fmt: skip
    with pytest.raises(OutOfStockError):
        work(-1)
    calls: list[Callable[[], list[int]]] = [dbos.gather, lambda: dbos.gather(child.start(1), child.start(2))]
    assert [call() for call in calls] == [[], [1, 2]]
