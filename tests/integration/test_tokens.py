"""Writes with a token that is stale, or twice under one number (guarantee 4, rule 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from dbos_orm import Retry, WorkflowState
from dbos_orm._context import current_frame
from dbos_orm.errors import NonDeterministicError
from dbos_orm.models import StepAttempt, StepOutput, WorkflowStatus
from tests.databases import TestDatabase
from tests.integration.interleaving import (
    PATIENCE,
    UNAWARE,
    Place,
    steal,
)
from tests.integration.shop import Item, launched
from tests.processes import eventually


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for what is to happen at the same time."""
    with ThreadPoolExecutor(40) as pool:
        yield pool


@pytest.mark.parametrize("write", ["step", "attempt", "transaction", "sleep", "child", "finish"])
def test_a_write_with_a_token_that_is_stale_is_refused(
    database: TestDatabase, threads: ThreadPoolExecutor, write: str
) -> None:
    place, went_on = Place(), []
    with launched(database, config=UNAWARE) as dbos:

        @dbos.step(retry=Retry(max_attempts=2, backoff=0))
        def step() -> None:
            place.hold()
            assert write == "step"

        @dbos.transaction
        def add(session: Session) -> None:
            session.add(Item(name="stale"))

        @dbos.workflow
        def child() -> None: ...

        operations: dict[str, Callable[[], object]] = {
            "step": step,
            "attempt": step,
            "transaction": add,
            "sleep": lambda: dbos.sleep(0),
            "child": child.start,
            "finish": lambda: None,
        }

        @dbos.workflow
        def workflow() -> None:
            if write not in ("step", "attempt"):
                place.hold()
            operations[write]()
            went_on.append(write)

        handle = workflow.options(workflow_id="run").start()
        place.wait_for_one()
        steal(database, "run")
        before = rows_of(database)
        place.open()
        runs = dbos._runtime.bound("this test").runs
        eventually(lambda: len(runs) == 0, what="the quiet end of the run")
        assert rows_of(database) == before
        assert handle.status() is WorkflowState.PENDING
    assert went_on == (["finish"] if write == "finish" else [])


def rows_of(database: TestDatabase) -> list[list[str]]:
    with Session(database.make_engine()) as session:
        tables = (WorkflowStatus, StepOutput, StepAttempt, Item)
        return [sorted(map(repr, session.execute(select(table.__table__)))) for table in tables]


def test_two_steps_that_were_given_one_number_are_told_from_one_step_recorded_twice(database: TestDatabase) -> None:
    with launched(database, config=UNAWARE) as dbos:

        @dbos.step
        def step() -> str:
            return "value"

        @dbos.workflow
        def workflow() -> None:
            step()
            frame = current_frame.get()
            assert frame is not None
            frame.scope.drawn -= 1
            step()

        with pytest.raises(NonDeterministicError):
            workflow()


def test_a_step_that_an_earlier_owner_recorded_meanwhile_is_adopted(
    database: TestDatabase, threads: ThreadPoolExecutor
) -> None:
    # Rule 6, another token under our number: what is recorded counts, and what we computed does not.
    place = Place()
    with launched(database, config=UNAWARE) as dbos:

        @dbos.step
        def step() -> str:
            place.hold()
            return "ours"

        @dbos.workflow
        def workflow() -> str:
            return step()

        called = threads.submit(workflow.options(workflow_id="run"))
        place.wait_for_one()
        with Session(database.make_engine()) as session, session.begin():
            row = StepOutput(workflow_id="run", scope="", step_id=1, write_id=1, owner_token="earlier")
            row.name, row.kind, row.output = step.name, "step", '"theirs"'
            session.add(row)
        place.open()
        assert called.result(PATIENCE) == "theirs"
