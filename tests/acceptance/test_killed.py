"""Processes that are killed: whatever was recorded stands, and whatever was not is done again by another one."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from dbos_orm import WorkflowState
from tests.acceptance.books import BRIEF_STEPS, COLOURS, KEPT_STEPS, Colour, World
from tests.acceptance.keepers import keeper
from tests.acceptance.ledger import Ledger
from tests.databases import POSTGRESQL
from tests.processes import ChildProcess, Processes, eventually

ROUNDS = 6

KINDS = [
    "Invoke",
    "Execute",
    "Spawn",
    "Write RunStart",
    "Write StepEntry",
    "Write child",
    "Write sleep",
    "Write AttemptEntry",
    "Write RunFinish",
    "WriteAlone",
    "Probe",
    "Read",
    "Change",
    "Pause",
    "AwaitCompletion",
    "AwaitOpened",
    "OpenSession",
    "Flush",
    "RecordIn",
    "Commit",
    "Rollback",
]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChildProcess]:
    """A process that has imported everything, and forks one for every line it is sent."""
    with Processes(tmp_path_factory.mktemp("forks")) as started:
        child = started.start_module("tests.acceptance.worker", "forks")
        child.wait_for_line("ready")
        yield child


@pytest.mark.parametrize("colour", COLOURS)
def test_a_process_killed_at_any_kind_of_effect_is_continued_at_once_and_its_rows_are_there_once(
    forks: ChildProcess, ledger: Ledger, world: World, colour: Colour
) -> None:
    # The lease is 30 s: only a proof of the death on the same host lets this test end in time.
    # Half of the moments here, the other half in the other colour: all of them are enumerated in process.
    first = (colour == "sync") == (ledger.database.backend == POSTGRESQL)
    moments = itertools.cycle(("before", "after") if first else ("after", "before"))
    deaths = {f"{kind} {moment}": (kind, moment) for kind, moment in zip(KINDS, moments, strict=False)}
    with keeper(colour, ledger.database.url, world) as books:
        for workflow_id, (kind, moment) in deaths.items():
            common = {"colour": colour, "url": ledger.address, "world": str(world.file)}
            task = {"task": "die", "workflow_id": workflow_id, "kind": kind, "moment": moment, **common}
            forks.send_line(json.dumps(task))
            ended = forks.wait_for_line("ended")
            assert ended == "ended -9", f"the run never came to {workflow_id!r}\n{forks.errors}"
        # Those that were stored are awaited; one may have died before it was.
        results = {workflow_id: books.call("keep", workflow_id, workflow_id) for workflow_id in deaths}
        eventually(lambda: not ledger.unfinished(), timeout=15)

    assert results == dict.fromkeys(deaths, 1 + 2 + 3 + 4 + 5)
    ledger.check_postings(dict.fromkeys(deaths, KEPT_STEPS))
    visits = world.visits
    assert all(visits[f"{workflow_id} first"] >= 1 for workflow_id in deaths)
    assert ledger.count_by_status() == Counter(
        {WorkflowState.SUCCESS: 3 * len(deaths), WorkflowState.CANCELLED: len(deaths)}
    )


@pytest.mark.parametrize("colour", COLOURS)
def test_processes_killed_at_random_moments_lose_nothing_and_double_nothing(
    forks: ChildProcess, ledger: Ledger, world: World, colour: Colour
) -> None:
    chance = random.Random(f"{colour} {ledger.database.backend}")
    for number in range(ROUNDS):
        common = {"colour": colour, "url": ledger.address, "world": str(world.file)}
        forks.send_line(json.dumps({"task": "load", "prefix": f"{ledger.address} {number}", **common}))
        pid = int(forks.wait_for_line("loading").split()[1])
        moment = chance.randrange(1, 50)
        for _ in itertools.repeat(None, moment):
            forks.wait_for_line("stored")
        os.kill(pid, signal.SIGKILL)
        forks.wait_for_line("ended -9")
    acknowledged = f"stored {ledger.address} "
    stored = {line.removeprefix("stored ") for line in forks.lines if line.startswith(acknowledged)}

    with keeper(colour, ledger.database.url, world) as books:
        eventually(lambda: not ledger.unfinished(), timeout=20)
        results = {workflow_id: books.result(workflow_id) for workflow_id in stored}

    assert set(results.values()) == {sum(range(1, BRIEF_STEPS + 1))}
    begun = ledger.statuses()
    assert stored <= begun.keys(), "a start that was acknowledged is lost"
    ledger.check_brief(begun, world)
