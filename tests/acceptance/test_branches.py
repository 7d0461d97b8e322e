"""Processes that are killed or stopped in transactions on a second database: its rows are there once."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator

import pytest

from dbos_orm import WorkflowState, schema
from tests.acceptance.books import SHORT, Colour, World
from tests.acceptance.branches import TOTAL, branch
from tests.acceptance.ledger import Ledger
from tests.conftest import MakeDatabase
from tests.databases import POSTGRESQL, SQLITE, Backend
from tests.processes import ChildProcess, Processes, eventually

KINDS = ["Reach", "OpenSession", "Invoke", "Flush", "RecordIn", "Commit", "Ask", "Rollback", "Write StepEntry"]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChildProcess]:
    """A process that has imported everything, and forks one for every line it is sent."""
    with Processes(tmp_path_factory.mktemp("forks")) as started:
        child = started.start_module("tests.acceptance.worker", "forks")
        child.wait_for_line("ready")
        yield child


def make_ledgers(make_database: MakeDatabase, main: Backend, other: Backend) -> tuple[Ledger, Ledger]:
    here, there = Ledger(make_database(main)), Ledger(make_database(other, schema=False))
    with there.database.make_engine().begin() as connection:
        schema.create_transaction_output(connection)
    return here, there


@pytest.mark.parametrize(
    ("colour", "main", "other"),
    [
        ("sync", POSTGRESQL, POSTGRESQL),
        ("sync", SQLITE, SQLITE),
        ("async", POSTGRESQL, SQLITE),
        ("async", SQLITE, POSTGRESQL),
    ],
)
def test_rows_in_both_databases_are_there_once_wherever_the_process_was_killed(
    forks: ChildProcess, make_database: MakeDatabase, world: World, colour: Colour, main: Backend, other: Backend
) -> None:
    here, there = make_ledgers(make_database, main, other)
    deaths = {f"{kind} {moment}": (kind, moment) for kind, moment in itertools.product(KINDS, ("before", "after"))}
    with branch(colour, here.database.url, there.database.url, world) as books:
        for workflow_id, (kind, moment) in deaths.items():
            common = {"colour": colour, "url": here.address, "other": there.address, "world": str(world.file)}
            task = {"task": "die", "workflow_id": workflow_id, "kind": kind, "moment": moment, **common}
            forks.send_line(json.dumps(task))
            ended = forks.wait_for_line("ended")
            assert ended == "ended -9", f"the run never came to {workflow_id!r}\n{forks.errors}"
        results = {workflow_id: books.call("both", workflow_id, workflow_id) for workflow_id in deaths}

    assert results == dict.fromkeys(deaths, TOTAL)
    for ledger in (here, there):
        ledger.check_postings(dict.fromkeys(deaths, 2))
    assert here.statuses() == dict.fromkeys(deaths, WorkflowState.SUCCESS)


@pytest.fixture
def start_holder(processes: Processes, world: World) -> Callable[[Colour, Ledger, Ledger], ChildProcess]:
    """Starts a process that holds its commit in the second database."""

    def start(colour: Colour, here: Ledger, there: Ledger) -> ChildProcess:
        rest = (here.address, there.address, str(world.file))
        return processes.start_module("tests.acceptance.worker", "hold_commit", colour, *rest)

    return start


@pytest.mark.parametrize("end", ["wakes up", "is killed"])
@pytest.mark.parametrize(("colour", "main"), [("sync", POSTGRESQL), ("async", SQLITE)])
def test_a_commit_that_a_stopped_process_is_about_to_make_is_waited_for(
    start_holder: Callable[[Colour, Ledger, Ledger], ChildProcess],
    make_database: MakeDatabase,
    world: World,
    colour: Colour,
    main: Backend,
    end: str,
) -> None:
    # Nothing fences it there any more: its owner has looked at its lease, and only the key is between the two.
    here, there = make_ledgers(make_database, main, POSTGRESQL)
    child = start_holder(colour, here, there)
    child.wait_for_line("at the commit")
    child.stop()
    with branch(colour, here.database.url, there.database.url, world, process=os.getpid(), config=SHORT) as books:
        eventually(lambda: here.row("run").executor_id == books.executor_id, timeout=20)
        eventually(there.waits_for_a_lock, timeout=20, what="the second owner at the key")
        assert there.notes() == []
        if end == "wakes up":
            child.send_line("go")
            child.cont()
            committed_by = child.pid
        else:
            child.kill()
            committed_by = os.getpid()
        assert books.result("run") == committed_by
    assert there.notes() == ["there"]
    assert here.errors_of_steps() == []
