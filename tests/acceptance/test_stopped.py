"""Processes that stand still (SIGSTOP) until another one has replaced them, and then go on: they write nothing.

The process under test is a child; the one that replaces it is the test's own. Leases are short.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from dbos_orm import WorkflowState
from tests.acceptance.books import COLOURS, SHORT, Colour, Gate, Keeper, World
from tests.acceptance.keepers import keeper
from tests.acceptance.ledger import Ledger
from tests.databases import POSTGRESQL, SQLITE, TestDatabase
from tests.processes import ChildProcess, Processes, eventually

LEASE = 0.8


@pytest.fixture
def start_holder(processes: Processes, world: World) -> Callable[[Colour, Ledger], ChildProcess]:
    """Starts a process that runs workflows and holds them."""

    def start(colour: Colour, ledger: Ledger) -> ChildProcess:
        return processes.start_module("tests.acceptance.worker", "hold", colour, ledger.address, str(world.file))

    return start


def name_of(child: ChildProcess) -> str:
    child.send_line("name")
    return child.wait_for_line("name ").split()[1]


def runs_of(child: ChildProcess) -> int:
    child.send_line("runs")
    return int(child.wait_for_line("runs ").split()[1])


def short_keeper(colour: Colour, ledger: Ledger, world: World) -> Keeper:
    return keeper(colour, ledger.database.url, world, config=SHORT)


@pytest.mark.parametrize(
    ("place", "backend"),
    [
        ("step", POSTGRESQL),
        ("step", SQLITE),
        # On SQLite nobody can replace the holder of the write lock: see the test below.
        ("transaction", POSTGRESQL),
        ("end", POSTGRESQL),
        ("end", SQLITE),
    ],
    indirect=["backend"],
)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_replaced_process_writes_nothing_and_goes_on_under_a_new_name(
    start_holder: Callable[[Colour, Ledger], ChildProcess],
    backend: TestDatabase,
    world: World,
    colour: Colour,
    place: str,
) -> None:
    ledger = Ledger(backend)
    child = start_holder(colour, ledger)
    first_name = child.wait_for_line("launched").split()[1]
    child.send_line(f"held run {place}")
    child.wait_for_line(f"at {place}")
    child.stop()

    gate = Gate()
    with keeper(colour, backend.url, world, at=gate, config=SHORT) as books:
        gate.wait_for_one()
        # The run is PENDING and another's: nothing but the token tells the two owners apart.
        before = ledger.everything()
        assert ledger.row("run").executor_id == books.executor_id
        child.cont()
        child.send_line("go")
        eventually(lambda: runs_of(child) == 0, timeout=20, what="the quiet end of the stale run")
        assert ledger.everything() == before
        gate.open()
        assert books.result("run") == os.getpid()
    # A direct call gives what was recorded by the process that ended the workflow.
    child.wait_for_line(f"returned run {os.getpid()}")
    assert ledger.notes() == (["held"] if place == "transaction" else [])

    eventually(lambda: name_of(child) != first_name, timeout=10, what="a new executor ID")
    child.send_line("brief next next")
    child.wait_for_line("returned next 6")
    assert ledger.row("next").executor_id == name_of(child)
    assert ledger.executors()[name_of(child)]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> TestDatabase:
    """The database that a test asks for by name."""
    found: TestDatabase = request.getfixturevalue(f"{request.param}_database")
    return found


@pytest.mark.parametrize("colour", COLOURS)
def test_on_sqlite_a_process_that_stands_still_in_a_transaction_keeps_its_work(
    start_holder: Callable[[Colour, Ledger], ChildProcess],
    sqlite_database: TestDatabase,
    world: World,
    colour: Colour,
) -> None:
    ledger = Ledger(sqlite_database)
    child = start_holder(colour, ledger)
    child.wait_for_line("launched")
    with short_keeper(colour, ledger, world) as books:
        child.send_line("held run transaction")
        child.wait_for_line("at transaction")
        child.stop()
        # Nobody can write, so nobody can renew: the whole silence proves nothing about anybody.
        lease_ends = books.application._runtime.launch
        assert lease_ends is not None
        eventually(lambda: not lease_ends.is_valid, timeout=10, what="the end of the observer's own lease")
        child.cont()
        child.send_line("go")
        # Its transaction commits, since nobody took the run; what is left of it is for whoever comes first.
        assert books.result("run") == child.pid
        child.wait_for_line(f"returned run {child.pid}")
    assert ledger.notes() == ["held"]
    assert ledger.steps("run") == [(1, "visit"), (2, "jot")]


@pytest.mark.parametrize(("colour", "backend"), [("sync", POSTGRESQL), ("async", SQLITE)], indirect=["backend"])
def test_a_process_that_renews_its_lease_is_not_robbed(
    start_holder: Callable[[Colour, Ledger], ChildProcess],
    backend: TestDatabase,
    world: World,
    colour: Colour,
) -> None:
    ledger = Ledger(backend)
    child = start_holder(colour, ledger)
    name = child.wait_for_line("launched").split()[1]
    child.send_line("held run step")
    child.wait_for_line("at step")
    with short_keeper(colour, ledger, world) as books:
        launch = books.application._runtime.launch
        assert launch is not None
        until = launch.lease_ends + 3 * LEASE
        # As long as it takes to rob somebody several times, measured by leases that were really renewed.
        eventually(lambda: launch.lease_ends > until, timeout=20)
        assert ledger.row("run").executor_id == name
        child.send_line("go")
        child.wait_for_line(f"returned run {child.pid}")
        assert books.result("run") == child.pid
    assert ledger.row("run").executor_id == name
    assert ledger.row("run").recovery_attempts == 0


def test_who_stood_still_does_not_take_the_silence_of_others_for_their_death(
    processes: Processes,
    start_holder: Callable[[Colour, Ledger], ChildProcess],
    postgresql_database: TestDatabase,
    world: World,
) -> None:
    # Rule 2: as after a suspend of the machine. The observer wakes first and must not rob the other.
    ledger = Ledger(postgresql_database)
    holder, observer = start_holder("sync", ledger), start_holder("sync", ledger)
    name = holder.wait_for_line("launched").split()[1]
    observer.wait_for_line("launched")
    holder.send_line("held run step")
    holder.wait_for_line("at step")
    observer_name = name_of(observer)
    holder.stop()
    observer.stop()
    heartbeat = ledger.heartbeat(observer_name)
    resume_at = time.monotonic() + 1.5 * LEASE
    eventually(lambda: time.monotonic() > resume_at)
    observer.cont()
    # Two renewals are more than half a heartbeat and less than a lease.
    eventually(lambda: ledger.heartbeat(observer_name) >= heartbeat + 2, timeout=LEASE)
    holder.cont()
    holder.send_line("go")
    holder.wait_for_line(f"returned run {holder.pid}")
    row = ledger.row("run")
    assert (row.status, row.executor_id, row.recovery_attempts) == (WorkflowState.SUCCESS, name, 0)
