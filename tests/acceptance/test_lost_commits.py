"""Commits whose request or answer is cut on the way: what happened is found out, and nothing is done twice."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import cast

import pytest

from dbos_orm import WorkflowState
from tests.acceptance.books import BRIEF_STEPS, COLOURS, Colour, World
from tests.acceptance.keepers import keeper
from tests.acceptance.ledger import Ledger
from tests.databases import TestDatabase
from tests.processes import eventually
from tests.proxy import Cut, Loss, Proxy

COMMIT = rb"\ACOMMIT;?\Z"
LOSSES = {"its answer is lost": Loss.ANSWER, "it is lost itself": Loss.REQUEST}


class Execution:
    """Recognises the execution of a statement by its text, also where it was prepared before.

    Takes the place of a pattern in ``Proxy.cut``. It must see a connection from its beginning: asyncpg sends
    the text of a statement only once, and names it from then on.
    """

    def __init__(self, statement: bytes) -> None:
        self._statement = re.compile(statement)
        self._names: set[bytes] = set()
        self._is_armed = threading.Event()

    def arm(self, place: str = "") -> None:
        """Meet the next execution; before, it only learns names."""
        self._is_armed.set()

    def search(self, message: bytes) -> bool:
        kind, parts = message[:1], message[5:].split(b"\0")
        if kind == b"P" and self._statement.search(parts[1]):
            self._names.add(parts[0])
        if kind == b"Q" and self._statement.search(parts[0]):
            return self._is_armed.is_set()
        return kind == b"B" and parts[1] in self._names and self._is_armed.is_set()


def cut(proxy: Proxy, execution: Execution, loss: Loss) -> Cut:
    return proxy.cut(loss, at=cast("re.Pattern[bytes]", execution))


@pytest.fixture
def ledger(postgresql_database: TestDatabase) -> Ledger:
    return Ledger(postgresql_database)


@pytest.fixture
def proxy(postgresql_database: TestDatabase, make_proxy: Callable[[TestDatabase], Proxy]) -> Proxy:
    return make_proxy(postgresql_database)


@pytest.fixture(params=list(LOSSES.values()), ids=list(LOSSES))
def loss(request: pytest.FixtureRequest) -> Loss:
    found: Loss = request.param
    return found


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        pytest.param(rb"INSERT INTO dbos_step_output", "step", id="step"),
        pytest.param(rb"UPDATE dbos_workflow_status", "end", id="finish"),
        pytest.param(COMMIT, "transaction", id="transaction"),
    ],
)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_write_that_is_cut_is_there_once_and_its_step_ran_no_more_than_it_had_to(
    ledger: Ledger, proxy: Proxy, world: World, colour: Colour, statement: bytes, place: str, loss: Loss
) -> None:
    execution = Execution(statement)
    happened = cut(proxy, execution, loss).happened
    places: list[str] = []

    def at(place: str) -> None:
        places.append(place)
        execution.arm()

    with keeper(colour, proxy.url, world, at=at) as books:
        heartbeat_is_over(ledger, books.executor_id)
        result = books.call("held", "run", place)
        assert happened.is_set()
        assert books.call("held", "run", place) == result
    # Only a transaction that did not commit is to be run again; every other write is simply repeated.
    runs_again = place == "transaction" and loss is Loss.REQUEST
    assert places == [place] * (2 if runs_again else 1)
    assert world.visits == {"run before": 1}
    names = {"step": ["visit", "hold"], "transaction": ["visit", "jot"], "end": ["visit"]}
    assert [name for _, name in ledger.steps("run")] == names[place]
    assert ledger.notes() == (["held"] if place == "transaction" else [])
    assert ledger.errors_of_steps() == []


@pytest.mark.parametrize("colour", COLOURS)
def test_a_start_that_is_cut_is_stored_once_and_is_still_the_callers(
    ledger: Ledger, proxy: Proxy, world: World, colour: Colour, loss: Loss
) -> None:
    execution = Execution(rb"INSERT INTO dbos_workflow_status")
    happened = cut(proxy, execution, loss).happened
    with keeper(colour, proxy.url, world) as books:
        execution.arm()
        # A caller who took its own row for somebody else's would wait for it for ever.
        books.call("brief", "run", "run")
        assert happened.is_set()
    ledger.check_brief(["run"], world)
    assert set(world.visits.values()) == {1}


@pytest.mark.parametrize("colour", COLOURS)
def test_a_child_whose_commit_is_cut_is_started_once_together_with_its_record(
    ledger: Ledger, proxy: Proxy, world: World, colour: Colour, loss: Loss
) -> None:
    execution = Execution(COMMIT)
    happened = cut(proxy, execution, loss).happened
    with keeper(colour, proxy.url, world, at=execution.arm) as books:
        heartbeat_is_over(ledger, books.executor_id)
        assert books.call("family", "run", "run") == 1
        assert happened.is_set()
    assert ledger.statuses() == dict.fromkeys(["run", "run-1"], WorkflowState.SUCCESS)
    assert [name for _, name in ledger.steps("run")] == ["part", "result"]
    assert world.visits == {"run-1 part": 1}
    ledger.check_postings({"run": 1})


@pytest.mark.parametrize("colour", COLOURS)
def test_a_claim_whose_commit_is_cut_is_run_once_by_whoever_has_it(
    ledger: Ledger, proxy: Proxy, world: World, colour: Colour, loss: Loss
) -> None:
    execution = Execution(COMMIT)
    happened = cut(proxy, execution, loss).happened
    starter = keeper(colour, ledger.database.url, world)
    starter.bind()
    with keeper(colour, proxy.url, world) as books:
        heartbeat_is_over(ledger, books.executor_id)
        execution.arm()
        starter.start("brief", "run", "run")
        assert books.result("run") == sum(range(1, BRIEF_STEPS + 1))
        assert happened.is_set()
        row = ledger.row("run")
        assert (row.executor_id, row.recovery_attempts) == (books.executor_id, 0)
    starter.close()
    ledger.check_brief(["run"], world)
    assert set(world.visits.values()) == {1}


def heartbeat_is_over(ledger: Ledger, executor_id: str) -> None:
    """Wait for the first renewal, a COMMIT too; the second one comes after the test."""
    eventually(lambda: ledger.heartbeat(executor_id) >= 1)
