"""Steps: recorded once, tried again, and with values and errors that keep their type."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from dbos_orm import DBOS, Retry
from dbos_orm.errors import MaxStepRetriesExceededError
from dbos_orm.models import StepAttempt
from tests.databases import TestDatabase
from tests.integration.shop import Interruption, OutOfStockError
from tests.processes import PATIENCE, eventually

AT_ONCE = Retry(max_attempts=3, backoff=0)


def test_a_recorded_step_is_not_run_again(dbos: DBOS) -> None:
    ran: list[int] = []
    values: list[int] = []

    @dbos.step
    def count() -> int:
        ran.append(1)
        return len(ran)

    @dbos.workflow
    def work() -> None:
        values.append(count())
        if len(values) == 1:
            raise Interruption

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    dbos.handle("w").result(PATIENCE)
    assert (len(ran), values) == (1, [1, 1])


def test_a_step_outside_a_workflow_is_a_plain_call(dbos: DBOS) -> None:
    @dbos.step(retry=AT_ONCE)
    def fail() -> None:
        raise OutOfStockError("tea", left=0)

    with pytest.raises(OutOfStockError):
        fail()


def test_a_step_needs_no_database_outside_a_workflow() -> None:
    dbos = DBOS(name="shop")
    assert dbos.step(len, name="length")("abc") == 3


def test_a_step_inside_a_step_is_a_plain_call(dbos: DBOS) -> None:
    @dbos.step
    def inner() -> str | None:
        return dbos.current.step_id

    @dbos.step
    def outer() -> str | None:
        return inner()

    @dbos.workflow
    def work() -> str | None:
        return outer()

    assert work.options(workflow_id="w")() == "1"
    assert [step.name.rpartition(".")[2] for step in dbos.handle("w").steps()] == ["outer"]


def test_any_callable_can_be_a_step(dbos: DBOS) -> None:
    @dbos.workflow
    def work(text: str) -> int:
        return dbos.step(len, name="length")(text)

    assert work.options(workflow_id="w")("abc") == 3
    assert [step.name for step in dbos.handle("w").steps()] == ["length"]


def test_a_step_knows_where_it_is(dbos: DBOS) -> None:
    @dbos.step(retry=AT_ONCE)
    def look() -> tuple[str, str | None, int, int, str]:
        here = dbos.current
        if here.attempt == 1:
            raise OutOfStockError("tea", left=0)
        return here.workflow_id, here.step_id, here.attempt, here.max_attempts, here.idempotency_key

    @dbos.workflow
    def work() -> tuple[str, str | None, int, int, str]:
        assert dbos.current.step_id is None
        dbos.step(len, name="length")("")
        return look()

    assert work.options(workflow_id="w")() == ("w", "2", 2, 3, "w/2")


# -- retries -------------------------------------------------------------------------------------


def test_a_failed_step_is_tried_again(dbos: DBOS) -> None:
    attempts: list[int] = []

    @dbos.step(retry=AT_ONCE)
    def charge() -> int:
        attempts.append(dbos.current.attempt)
        if len(attempts) < 3:
            raise OutOfStockError("tea", left=len(attempts))
        return len(attempts)

    @dbos.workflow
    def pay() -> int:
        return charge()

    assert pay.options(workflow_id="p")() == 3
    assert attempts == [1, 2, 3]
    assert [step.attempts for step in dbos.handle("p").steps()] == [3]


def test_without_retry_a_step_is_tried_once(dbos: DBOS) -> None:
    attempts: list[int] = []

    @dbos.step
    def charge() -> None:
        attempts.append(1)
        raise OutOfStockError("tea", left=0)

    @dbos.workflow
    def pay() -> None:
        charge()

    with pytest.raises(OutOfStockError):
        pay()
    assert attempts == [1]


def test_an_exhausted_step_raises_every_error(dbos: DBOS) -> None:
    @dbos.step(name="charge", retry=AT_ONCE)
    def charge() -> None:
        raise OutOfStockError("tea", left=dbos.current.attempt)

    @dbos.workflow
    def pay() -> None:
        charge()

    chosen = pay.options(workflow_id="p")
    for call in (chosen, dbos.handle("p").result):
        with pytest.raises(MaxStepRetriesExceededError, match="step 'charge' failed in each of 3 attempts") as caught:
            call()
        errors = caught.value.errors
        assert caught.value.attempts == 3
        assert [(type(error), getattr(error, "left", None)) for error in errors] == [
            (OutOfStockError, 1),
            (OutOfStockError, 2),
            (OutOfStockError, 3),
        ]


@pytest.mark.parametrize(
    "retry_if", [(KeyError,), lambda error: isinstance(error, KeyError)], ids=["types", "function"]
)
def test_an_error_that_is_not_worth_another_attempt_is_raised_at_once(
    dbos: DBOS, retry_if: Callable[[Exception], bool] | tuple[type[Exception], ...]
) -> None:
    attempts: list[int] = []

    @dbos.step(retry=Retry(max_attempts=5, backoff=0, retry_if=retry_if))
    def charge() -> None:
        attempts.append(1)
        raise KeyError("again") if len(attempts) < 3 else OutOfStockError("tea", left=0)

    @dbos.workflow
    def pay() -> None:
        charge()

    with pytest.raises(OutOfStockError):
        pay()
    assert len(attempts) == 3


def test_the_pauses_between_attempts_grow(dbos: DBOS, database: TestDatabase) -> None:
    times: list[float] = []

    @dbos.step(retry=Retry(max_attempts=4, backoff=timedelta(milliseconds=40), backoff_rate=2, max_backoff=0.1))
    def charge() -> None:
        times.append(time.monotonic())
        raise OutOfStockError("tea", left=0)

    @dbos.workflow
    def pay() -> None:
        charge()

    with pytest.raises(MaxStepRetriesExceededError):
        pay.options(workflow_id="p")()
    # A fifth of a pause may be taken off at random: 40, 80 and 100 ms at most.
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert [pause >= least for pause, least in zip(pauses, (0.032, 0.064, 0.08), strict=True)] == [True] * 3
    with Session(database.make_engine()) as session:
        recorded = session.scalars(select(StepAttempt).order_by(StepAttempt.attempt)).all()
        assert [row.attempt for row in recorded] == [1, 2, 3]
        planned = [(row.next_at - row.failed_at).total_seconds() for row in recorded if row.next_at and row.failed_at]
        for length, longest in zip(planned, (0.04, 0.08, 0.1), strict=True):
            assert 0.8 * longest - 0.001 <= length <= longest + 0.001


def test_attempts_count_on_after_an_interruption(dbos: DBOS) -> None:
    attempts: list[int] = []

    @dbos.step(retry=AT_ONCE)
    def charge() -> None:
        attempts.append(dbos.current.attempt)
        if len(attempts) == 2:
            raise Interruption
        raise OutOfStockError("tea", left=dbos.current.attempt)

    @dbos.workflow
    def pay() -> None:
        charge()

    with pytest.raises(Interruption):
        pay.options(workflow_id="p")()
    with pytest.raises(MaxStepRetriesExceededError) as caught:
        dbos.handle("p").result(PATIENCE)
    assert attempts == [1, 2, 2, 3]
    assert [getattr(error, "left", None) for error in caught.value.errors] == [1, 2, 3]


# -- the end of a run ----------------------------------------------------------------------------


def test_a_long_step_can_ask_whether_it_is_cancelled(dbos: DBOS) -> None:
    is_running, saw = threading.Event(), threading.Event()

    @dbos.step
    def wait() -> None:
        is_running.set()
        eventually(lambda: dbos.current.is_cancelled)
        saw.set()

    @dbos.workflow
    def work() -> None:
        wait()

    handle = work.start()
    assert is_running.wait(PATIENCE)
    handle.cancel()
    assert saw.wait(PATIENCE)
