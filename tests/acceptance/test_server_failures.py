"""A PostgreSQL that is restarted, killed, or away, while workflows run: no acknowledged write is lost or doubled."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from dbos_orm import Config, WorkflowState
from dbos_orm._context import Launch
from dbos_orm.errors import DatabaseUnavailableError
from tests.acceptance.books import BRIEF_STEPS, COLOURS, Colour, Gate, Keeper, World
from tests.acceptance.keepers import keeper
from tests.acceptance.ledger import Ledger
from tests.databases import TestDatabase
from tests.postgres_server import PostgresServer, StopMode
from tests.processes import eventually
from tests.proxy import Proxy

CALLERS = 6
BRIEF_RESULT = sum(range(1, BRIEF_STEPS + 1))
# Half the lease is more than the half second after which a heartbeat that failed is tried again.
OUTLASTED = Config(lease=1.5, heartbeat=0.2, tick=0.05)


class Work:
    """Callers that run one workflow after the other and expect the right result from each."""

    def __init__(self, books: Keeper) -> None:
        self._books = books
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self.done: list[str] = []

    def call_until_over(self) -> None:
        while not self._is_over.is_set():
            workflow_id = f"run-{next(self._numbers)}"
            assert self._books.call("brief", workflow_id, workflow_id) == BRIEF_RESULT
            self.done.append(workflow_id)

    def end(self) -> None:
        self._is_over.set()

    def go_on(self) -> None:
        """Wait until every caller has got on since now."""
        wanted = len(self.done) + 2 * CALLERS
        eventually(lambda: len(self.done) >= wanted, timeout=20, what="more workflows")


@contextmanager
def working(books: Keeper) -> Iterator[Work]:
    """Callers in threads; whatever one of them raises is raised here."""
    work = Work(books)
    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(work.call_until_over) for _ in range(CALLERS)]
        try:
            work.go_on()
            yield work
        finally:
            work.end()
        for caller in callers:
            caller.result(timeout=30)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_server_that_is_restarted_or_killed_loses_nothing_and_the_work_goes_on(
    private_postgres: PostgresServer, private_database: TestDatabase, world: World, colour: Colour
) -> None:
    ledger = Ledger(private_database)
    with keeper(colour, private_database.url, world) as books, working(books) as work:
        for mode in (StopMode.FAST, StopMode.IMMEDIATE, StopMode.KILL):
            private_postgres.restart(mode)
            work.go_on()
    ledger.check_brief(work.done, world)


@pytest.mark.parametrize("colour", COLOURS)
def test_backends_that_are_killed_again_and_again_lose_nothing(
    postgresql_database: TestDatabase, world: World, colour: Colour
) -> None:
    ledger = Ledger(postgresql_database)
    with keeper(colour, postgresql_database.url, world) as books, working(books) as work:
        for _ in range(8):
            assert postgresql_database.terminate_connections() > 0
            work.go_on()
    ledger.check_brief(work.done, world)


def launch_of(books: Keeper) -> Launch:
    launch = books.application._runtime.launch
    assert launch is not None
    return launch


@pytest.mark.parametrize("ends", ["during the outage", "after the outage"])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_database_away_for_longer_than_the_lease_ends_runs_quietly_and_gets_nobody_robbed(
    postgresql_database: TestDatabase,
    make_proxy: Callable[[TestDatabase], Proxy],
    world: World,
    colour: Colour,
    ends: str,
) -> None:
    ledger = Ledger(postgresql_database)
    near, far = make_proxy(postgresql_database), make_proxy(postgresql_database)
    gate = Gate()
    with (
        keeper(colour, near.url, world, at=gate, config=OUTLASTED) as books,
        keeper("sync", far.url, world, config=OUTLASTED) as others,
        ThreadPoolExecutor(1) as caller,
    ):
        names = {books.executor_id, others.executor_id}
        called = caller.submit(books.call, "held", "run", "step")
        gate.wait_for_one()
        near.refuse()
        far.refuse()
        eventually(lambda: not launch_of(books).is_valid and not launch_of(others).is_valid, timeout=20)
        if ends == "during the outage":
            gate.open()
            # Rule 22: the write waits for the database only as long as the lease holds.
            eventually(lambda: books.runs == 0, timeout=20, what="the quiet end of the run")
        # Rule 2: the first to reconnect has seen nothing of the others for longer than a lease.
        heartbeat = ledger.heartbeat(others.executor_id)
        far.accept()
        eventually(lambda: ledger.heartbeat(others.executor_id) >= heartbeat + 2, timeout=20)
        near.accept()
        eventually(lambda: launch_of(books).is_valid, timeout=20)
        if ends == "during the outage":
            with pytest.raises(DatabaseUnavailableError):
                called.result(timeout=20)
            # Nobody is dead: its own process hands the run over, and whoever is first continues it.
            others.result("run")
        else:
            gate.open()
            called.result(timeout=20)

        assert ledger.executors() == dict.fromkeys(names, True)
        row = ledger.row("run")
        assert (row.status, row.recovery_attempts) == (WorkflowState.SUCCESS, 0)
        # What ran while the lease had ended is dropped, whoever continues runs it again.
        assert world.visits["run before"] == 1
        if ends == "after the outage":
            assert gate.count == 1
            assert row.executor_id == books.executor_id
    assert ledger.steps("run") == [(1, "visit"), (2, "hold")]
    assert ledger.errors_of_steps() == []
