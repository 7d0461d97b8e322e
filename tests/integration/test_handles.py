"""Handles: results any number of times and from anywhere, and what the rows say to plain queries."""

from __future__ import annotations

import builtins
import pickle
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from dbos_orm import DBOS, WorkflowInfo, WorkflowState, WorkflowStatus
from dbos_orm.errors import WorkflowNotFoundError
from dbos_orm.models import StepOutput
from tests.databases import TestDatabase
from tests.integration.shop import SOON, Interruption, OutOfStockError, launched, reading
from tests.processes import PATIENCE


def test_a_result_can_be_asked_for_any_number_of_times(dbos: DBOS) -> None:
    @dbos.workflow
    def work(number: int) -> list[int]:
        return [number]

    handle = work.start(7)
    first = handle.result(PATIENCE)
    first.append(8)
    assert handle.result() == [7]
    assert work.handle(handle.workflow_id).result() == [7]
    assert dbos.handle(handle.workflow_id).result() == [7]


def test_an_error_can_be_asked_for_any_number_of_times(dbos: DBOS) -> None:
    @dbos.workflow
    def work() -> None:
        raise OutOfStockError("tea", left=1)

    handle = work.start()
    for _ in range(3):
        with pytest.raises(OutOfStockError) as caught:
            handle.result(PATIENCE)
        assert caught.value.left == 1
    assert handle.status() is WorkflowState.ERROR


def test_another_application_object_gets_the_result(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def work() -> str:
        return "done"

    workflow_id = work.start().workflow_id
    elsewhere = DBOS(name="observer", config=SOON).bind(database.make_engine())
    handle = elsewhere.handle(workflow_id)
    assert not handle.created
    assert handle.result(PATIENCE) == "done"
    assert handle.describe().application == "shop"


def test_a_caller_without_patience_gets_the_builtin_timeout_error(dbos: DBOS) -> None:
    may_go_on = threading.Event()

    @dbos.workflow
    def work() -> str:
        assert may_go_on.wait(PATIENCE)
        return "done"

    handle = work.start()
    with pytest.raises(builtins.TimeoutError, match=r"is PENDING after 0\.05 s; it goes on"):
        handle.result(timeout=timedelta(seconds=0.05))
    with pytest.raises(builtins.TimeoutError):
        handle.result(0)
    may_go_on.set()
    assert handle.result(PATIENCE) == "done"


def test_running_out_of_patience_is_recorded_in_a_workflow(dbos: DBOS) -> None:
    may_go_on = threading.Event()
    seen: list[str] = []

    @dbos.workflow
    def slow() -> str:
        assert may_go_on.wait(PATIENCE)
        return "done"

    @dbos.workflow
    def work() -> None:
        handle = slow.start()
        try:
            seen.append(handle.result(timeout=0.05))
        except TimeoutError as error:
            seen.append(type(error).__name__)
        if len(seen) == 1:
            may_go_on.set()
            handle.result(PATIENCE)
            raise Interruption

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    dbos.handle("w").result(PATIENCE)
    assert seen == ["TimeoutError", "TimeoutError"]


def test_answers_to_a_workflow_are_recorded(dbos: DBOS) -> None:
    may_go_on = threading.Event()
    seen: list[tuple[WorkflowState, WorkflowInfo, int]] = []

    @dbos.workflow
    def slow() -> None:
        assert may_go_on.wait(PATIENCE)

    @dbos.workflow
    def work() -> None:
        handle = slow.start()
        seen.append((handle.status(), handle.describe(), len(handle.steps())))
        if len(seen) == 1:
            may_go_on.set()
            raise Interruption

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    dbos.handle("w").result(PATIENCE)
    dbos.handle("w-1").result(PATIENCE)
    assert seen[0] == seen[1]
    assert seen[1][0] is WorkflowState.PENDING
    assert dbos.handle("w-1").status() is WorkflowState.SUCCESS


def test_a_workflow_that_does_not_exist_is_reported_at_once(dbos: DBOS) -> None:
    handle = dbos.handle("missing")
    for ask in (handle.result, handle.status, handle.describe, handle.steps, handle.cancel):
        with pytest.raises(WorkflowNotFoundError, match="'missing' does not exist in this database") as caught:
            ask()
        assert caught.value.workflow_id == "missing"


def test_a_missing_workflow_can_be_asked_for_in_a_workflow(dbos: DBOS) -> None:
    @dbos.workflow
    def work() -> list[str]:
        caught = []
        for ask in (dbos.handle("missing").result, dbos.handle("missing").status):
            try:
                ask()
            except WorkflowNotFoundError as error:
                caught.append(error.workflow_id)
        return caught

    assert work() == ["missing", "missing"]


def test_a_description_is_a_frozen_snapshot(dbos: DBOS) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)

    @dbos.workflow(name="work", version="7", timeout=60)
    def work() -> None: ...

    work.options(workflow_id="w", attributes={"tenant": 7})()
    info = dbos.handle("w").describe()
    assert (info.name, info.version, info.status, info.attributes) == (
        "work", "7", WorkflowState.SUCCESS, {"tenant": 7},
    )  # fmt: skip
    assert info.started_at is not None
    assert info.completed_at is not None
    assert info.deadline is not None
    assert before < info.created_at <= info.started_at <= info.completed_at < info.deadline
    assert info.created_at.tzinfo is not None
    assert timedelta(seconds=59) < info.deadline - info.started_at < timedelta(seconds=61)
    assert pickle.loads(pickle.dumps(info)) == info
    with pytest.raises(AttributeError):
        info.status = WorkflowState.ERROR  # type: ignore[misc]


def test_steps_are_listed_in_their_order_with_their_outcome(dbos: DBOS) -> None:
    @dbos.step(name="double")
    def double(number: int) -> int:
        return 2 * number

    @dbos.step(name="fail")
    def fail() -> None:
        raise OutOfStockError("tea", left=1)

    @dbos.workflow
    def work() -> None:
        for number in range(11):
            double(number)
        with pytest.raises(OutOfStockError):
            fail()

    work.options(workflow_id="w")()
    steps = dbos.handle("w").steps()
    assert [step.path for step in steps] == [str(number) for number in range(1, 13)]
    assert [step.output for step in steps[:11]] == [2 * number for number in range(11)]
    assert isinstance(steps[11].error, OutOfStockError)
    assert all(step.started_at and step.completed_at and step.started_at <= step.completed_at for step in steps)


def test_the_rows_answer_plain_queries(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.step(name="double")
    def double(number: int) -> int:
        return 2 * number

    @dbos.workflow(name="work")
    def work(number: int) -> int:
        return double(number)

    for number in range(3):
        work.options(workflow_id=f"w{number}", attributes={"number": number})(number)
    with reading(database) as session:
        wanted = WorkflowStatus.attributes["number"].as_integer() > 0
        found = session.scalars(
            select(WorkflowStatus)
            .where(WorkflowStatus.name == "work", WorkflowStatus.status == WorkflowState.SUCCESS, wanted)
            .order_by(WorkflowStatus.sequence)
            .options(selectinload(WorkflowStatus.steps))
        ).all()
        assert [(row.workflow_id, row.output, [step.name for step in row.steps]) for row in found] == [
            ("w1", "2", ["double"]),
            ("w2", "4", ["double"]),
        ]
        outputs = select(StepOutput.output).join(WorkflowStatus, WorkflowStatus.workflow_id == StepOutput.workflow_id)
        assert sorted(filter(None, session.scalars(outputs))) == ["0", "2", "4"]


def test_a_handle_outlives_its_launch(database: TestDatabase) -> None:
    with launched(database) as dbos:

        @dbos.workflow
        def work() -> str:
            return "done"

        handle = work.start()
        handle.result(PATIENCE)
    dbos.bind(database.make_engine())
    assert handle.result() == "done"


def test_a_handle_says_that_it_cannot_be_pickled(dbos: DBOS) -> None:
    with pytest.raises(TypeError, match="workflow_id, 'w'"):
        pickle.dumps(dbos.handle("w"))
