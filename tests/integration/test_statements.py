"""How many statements each thing costs: a fresh run reads nothing, a history is loaded in one query."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Config, Retry
from tests.conftest import MakeDatabase
from tests.databases import POSTGRESQL, SQLITE, Backend, TestDatabase
from tests.integration.pairs import make_pair
from tests.integration.shop import (
    Interruption,
    Item,
    OutOfStockError,
    Statements,
    is_settled,
    launched,
    launched_async,
)
from tests.processes import PATIENCE, eventually, eventually_async

QUIET = Config(tick=60)
"""Only what is counted; the tick looks around once, at the launch."""


@dataclass
class Counted:
    """An application, and what it sends over its own pool (``ours``) and over the user's engine (``users``)."""

    dbos: DBOS
    ours: Statements
    users: Statements
    backend: Backend

    def clear(self) -> None:
        self.ours.clear()
        self.users.clear()

    @property
    def boundary(self) -> list[str]:
        """How a transaction of the user's engine begins: SQLite's is begun by a statement of the engine's recipe."""
        return ["BEGIN"] if self.backend == POSTGRESQL else ["BEGIN", "BEGIN"]

    @property
    def child(self) -> list[str]:
        """How a child and its parent's record of it are written together."""
        together = ["INSERT step", "INSERT workflow"]
        return [" + ".join(together)] if self.backend == POSTGRESQL else ["BEGIN", *together, "COMMIT"]


@pytest.fixture
def counted(database: TestDatabase) -> Iterator[Counted]:
    engine = database.make_engine()
    with launched(database, engine=engine, config=QUIET) as dbos:

        @dbos.workflow
        def warm_up() -> None: ...

        warm_up()
        eventually(lambda: is_settled(dbos))
        dbos._runtime.bound("test").hints.look_everywhere = None
        ours = Statements(dbos._runtime.bound("test").gateway.engine)
        # The committer's connection is made anew, so that it is listened to.
        dbos._runtime.bound("test").committer.close()
        warm_up()
        yield Counted(dbos, ours, Statements(engine, boundaries=True), database.backend)


def test_a_workflow_without_steps_is_two_statements(counted: Counted) -> None:
    @counted.dbos.workflow
    def work(number: int) -> int:
        return number

    counted.clear()
    work(1)
    assert counted.ours.kinds == ["INSERT workflow", "UPDATE workflow"]
    assert counted.users.kinds == []


def test_a_started_workflow_is_two_statements_and_a_look_at_the_result(counted: Counted) -> None:
    @counted.dbos.workflow
    def work(number: int) -> int:
        return number

    counted.clear()
    handle = work.start(1)
    eventually(lambda: not counted.dbos._runtime.bound("test").runs.all())
    assert counted.ours.kinds == ["INSERT workflow", "UPDATE workflow"]
    counted.clear()
    handle.result(PATIENCE)
    assert counted.ours.kinds == ["SELECT workflow"]


def test_a_step_is_one_statement(counted: Counted) -> None:
    @counted.dbos.step
    def double(number: int) -> int:
        return 2 * number

    @counted.dbos.workflow
    def work(steps: int) -> None:
        for number in range(steps):
            double(number)

    counted.clear()
    work(3)
    assert counted.ours.kinds == ["INSERT workflow", *["INSERT step"] * 3, "UPDATE workflow"]


def test_a_transactional_step_adds_its_checkpoint_to_the_users_transaction(counted: Counted) -> None:
    @counted.dbos.transaction
    def add(session: Session, name: str) -> None:
        session.add(Item(name=name))

    @counted.dbos.workflow
    def work() -> None:
        add("tea")

    counted.clear()
    work()
    assert counted.ours.kinds == ["INSERT workflow", "UPDATE workflow"]
    assert counted.users.kinds == [*counted.boundary, "INSERT item", "INSERT step", "COMMIT"]


def test_a_transaction_elsewhere_is_one_commit_there_and_one_statement_here(
    counted: Counted, make_database: MakeDatabase
) -> None:
    pair = make_pair(make_database, SQLITE, counted.backend)
    maker = pair.maker()
    there = Statements(maker.kw["bind"], boundaries=True)

    @counted.dbos.transaction(sessionmaker=maker)
    def add(session: Session, name: str) -> None:
        session.add(Item(name=name))

    @counted.dbos.workflow
    def work(name: str) -> None:
        add(name)

    work("which database it is, is asked once")
    counted.clear()
    there.clear()
    work("tea")
    assert counted.ours.kinds == ["INSERT workflow", "INSERT step", "UPDATE workflow"]
    assert counted.users.kinds == []
    assert there.kinds == [*counted.boundary, "INSERT item", "INSERT output", "COMMIT"]


def test_a_limit_of_statements_is_one_more_where_there_is_such_a_limit(counted: Counted) -> None:
    @counted.dbos.transaction(statement_timeout=5)
    def add(session: Session, name: str) -> None:
        session.add(Item(name=name))

    @counted.dbos.workflow
    def work() -> None:
        add("tea")

    counted.clear()
    work()
    limit = ["SET"] if counted.backend == POSTGRESQL else []
    assert counted.users.kinds == [*counted.boundary, *limit, "INSERT item", "INSERT step", "COMMIT"]


def test_a_child_and_its_record_are_one_transaction(counted: Counted) -> None:
    @counted.dbos.workflow
    def child() -> None: ...

    @counted.dbos.workflow
    def parent() -> None:
        child()

    counted.clear()
    parent()
    assert counted.ours.kinds == [
        "INSERT workflow",
        *counted.child,
        "UPDATE workflow",  # the child's end
        "INSERT step",  # its result in the parent
        "UPDATE workflow",
    ]


def test_sleep_and_now_are_one_statement_each_and_chance_is_none(counted: Counted) -> None:
    dbos = counted.dbos

    @dbos.workflow
    def work() -> None:
        dbos.now()
        dbos.uuid()
        dbos.random.random()
        dbos.sleep(0.001)

    counted.clear()
    work()
    assert counted.ours.kinds == ["INSERT workflow", "INSERT step", "INSERT step", "UPDATE workflow"]


def test_a_failed_attempt_is_one_statement(counted: Counted) -> None:
    dbos = counted.dbos

    @dbos.step(retry=Retry(max_attempts=2, backoff=0))
    def charge() -> None:
        if dbos.current.attempt == 1:
            raise OutOfStockError("tea", left=0)

    @dbos.workflow
    def work() -> None:
        charge()

    counted.clear()
    work()
    assert counted.ours.kinds == ["INSERT workflow", "INSERT attempt", "INSERT step", "UPDATE workflow"]


def test_a_known_id_costs_one_refused_insert_and_one_look(counted: Counted) -> None:
    @counted.dbos.workflow
    def work() -> None: ...

    work.options(workflow_id="w")()
    counted.clear()
    work.options(workflow_id="w").start()
    assert counted.ours.kinds == ["INSERT workflow", "SELECT workflow"]


def test_a_replay_loads_its_history_in_one_query(database: TestDatabase) -> None:
    with launched(database) as dbos:
        ran = [0]
        binding = dbos._runtime.bound("test")
        ours = Statements(binding.gateway.engine)

        @dbos.step
        def double(number: int) -> int:
            return 2 * number

        @dbos.workflow
        def work() -> None:
            ran[0] += 1
            for number in range(5):
                double(number)
            if ran == [1]:
                binding.committer.close()
                ours.clear()
                raise Interruption
            double(5)

        with pytest.raises(Interruption):
            work.options(workflow_id="w")()
        eventually(lambda: ran == [2] and not binding.runs.all())
        # The tick may hold the status row for a moment, and then a step is looked up; a history is so only once.
        assert len([statement for statement in ours.sent if statement.endswith("ORDER BY attempt")]) == 1
        assert len(dbos.handle("w").steps()) == 6


async def test_coroutines_cost_the_same(database: TestDatabase) -> None:
    async with launched_async(database, config=QUIET) as dbos:

        @dbos.step
        async def double(number: int) -> int:
            return 2 * number

        @dbos.workflow
        async def work(steps: int) -> None:
            for number in range(steps):
                await double(number)

        await work(0)
        await eventually_async(lambda: is_settled(dbos))
        binding = dbos._runtime.bound("test")
        binding.hints.look_everywhere = None
        await eventually_listened(dbos)
        ours = Statements(binding.gateway.engine)
        await work(0)
        ours.clear()
        await work(3)
        assert ours.kinds == ["INSERT workflow", *["INSERT step"] * 3, "UPDATE workflow"]


async def eventually_listened(dbos: AsyncDBOS) -> None:
    """Have the committer make its connection anew, so that it is listened to."""
    binding = dbos._runtime.bound("test")
    await asyncio.to_thread(binding.gateway.blocking, binding.committer.close)
