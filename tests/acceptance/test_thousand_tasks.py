"""A workflow starts many tasks and collects what they come to, while processes are killed again and again."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, func, select

from dbos_orm.models import StepOutput, WorkflowStatus
from tests.acceptance.tasks import Tasks
from tests.databases import TestDatabase
from tests.processes import ChildProcess, Processes

PROCESSES = 2
KILLS = 6
PATIENCE = 90.0


@pytest.fixture
def tasks(database: TestDatabase) -> Iterator[Tasks]:
    """A process that starts, and runs nothing."""
    made = Tasks(database.make_engine())
    yield made
    made.dbos.shutdown()


class Killer:
    """Keeps some worker processes alive, and kills one of them at random moments."""

    def __init__(self, database: TestDatabase, processes: Processes, seed: str) -> None:
        self._url = database.url.render_as_string(hide_password=False)
        self._processes = processes
        self._chance = random.Random(seed)
        self._alive: list[ChildProcess] = []
        self.all: list[ChildProcess] = []
        self.kills = 0
        sys.stdout.write(f"seed {seed!r}\n")

    def fill_up(self) -> None:
        while len(self._alive) < PROCESSES:
            child = self._processes.start_module("tests.acceptance.tasks", self._url, json.dumps({"worker_threads": 8}))
            self._alive.append(child)
            self.all.append(child)

    def kill_one(self) -> None:
        # Not to wait for anything: so that it dies in the midst of something.
        time.sleep(self._chance.uniform(0.1, 1.2))
        child = self._alive.pop(self._chance.randrange(len(self._alive)))
        child.kill()
        self.kills += 1
        self.fill_up()


@pytest.mark.parametrize(("workflow", "count"), [("many", 1000), ("loop", 150)])
def test_every_task_comes_to_one_outcome_and_the_list_is_right(
    tasks: Tasks, database: TestDatabase, processes: Processes, workflow: str, count: int
) -> None:
    collect = tasks.many if workflow == "many" else tasks.loop
    killer = Killer(database, processes, f"{workflow} on {database.backend}")
    killer.fill_up()
    for child in killer.all:
        child.wait_for_line("ready")
    handle = collect.options(workflow_id="collect").start(count)

    while killer.kills < KILLS and handle.status().is_live:
        killer.kill_one()

    assert handle.result(timeout=PATIENCE) == [2 * number for number in range(count)]
    engine = database.make_engine()
    assert states(engine) == {"SUCCESS": count + 1}
    assert outputs(engine) == Counter(str(2 * number) for number in range(count))
    assert recorded(engine, "double") == count, "each task has one record of its step"
    assert recorded(engine, "result") == count
    assert begun(killer) >= set(range(count))
    assert killer.kills > 1, "some were killed before it was over"


def states(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        statement = select(WorkflowStatus.status, func.count()).group_by(WorkflowStatus.status)
        return {row[0]: row[1] for row in connection.execute(statement)}


def outputs(engine: Engine) -> Counter[str | None]:
    with engine.connect() as connection:
        return Counter(connection.scalars(select(WorkflowStatus.output).where(WorkflowStatus.name == "work")))


def recorded(engine: Engine, name: str) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).where(StepOutput.name == name)) or 0


def begun(killer: Killer) -> set[int]:
    """The tasks that some process began."""
    return {int(line.split()[1]) for child in killer.all for line in child.lines if line.startswith("began")}
