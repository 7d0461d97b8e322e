"""Callers that are interrupted, and applications that end, while workflows are being stored or run."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Config, WorkflowState, WorkflowStatus
from dbos_orm._drivers.writer_turn import WriterTurn
from dbos_orm._identifiers import IdentifierSource
from dbos_orm.errors import ConfigurationError, NotLaunchedError, OwnershipLost
from tests.databases import TestDatabase
from tests.processes import PATIENCE, eventually_async

QUICK = Config(tick=0.02)


async def test_a_start_whose_caller_is_cancelled_is_run_all_the_same_or_was_never_stored(
    database: TestDatabase,
) -> None:
    adbos = AsyncDBOS(database.make_async_engine(), name="hasty", config=QUICK)

    @adbos.workflow
    async def work(number: int) -> int:
        return number

    def unfinished() -> int:
        with Session(database.make_engine()) as session:
            return session.scalar(select(func.count()).where(WorkflowStatus.status != WorkflowState.SUCCESS)) or 0

    async with adbos.launch():
        await work(0)
        for number in range(40):
            starting = asyncio.create_task(work.start(number))
            for _ in range(number % 8):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
        await eventually_async(lambda: unfinished() == 0)


def test_a_run_that_a_shutdown_left_behind_runs_no_further_step(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="left", config=QUICK)
    reached, released, ended = threading.Event(), threading.Event(), threading.Event()
    charged: list[str] = []
    lost: list[BaseException] = []

    @dbos.step
    def charge() -> None:
        charged.append("charged")

    @dbos.workflow
    def pay() -> None:
        reached.set()
        released.wait(PATIENCE)
        try:
            charge()
        except BaseException as error:
            lost.append(error)
            raise
        finally:
            ended.set()

    dbos.launch()
    pay.start()
    assert reached.wait(PATIENCE)
    dbos.shutdown(0)
    released.set()
    assert ended.wait(PATIENCE)
    assert charged == []
    assert isinstance(lost[0], OwnershipLost)


def test_a_direct_caller_is_told_that_the_launch_is_over(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="over", config=QUICK)
    reached = threading.Event()

    @dbos.workflow
    def rest() -> None:
        reached.set()
        dbos.sleep(600)

    dbos.launch()
    with ThreadPoolExecutor(1) as threads:
        calling = threads.submit(rest)
        assert reached.wait(PATIENCE)
        dbos.shutdown(0)
        with pytest.raises(NotLaunchedError):
            calling.result(PATIENCE)


def test_a_bind_survives_a_shutdown(database: TestDatabase) -> None:
    dbos = DBOS(name="kept", config=QUICK)

    @dbos.workflow
    def work() -> str:
        return "done"

    dbos.bind(database.make_engine())
    with dbos.launch():
        work.options(workflow_id="w")()
    assert dbos.handle("w").result(PATIENCE) == "done"
    with dbos.launch():
        assert work() == "done"


def test_a_shutdown_with_a_wrong_timeout_ends_nothing(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="wrong", config=QUICK)
    with dbos.launch():
        with pytest.raises(ConfigurationError):
            dbos.shutdown("5")  # type: ignore[arg-type]
        assert dbos.is_launched
    assert not dbos.is_launched


def test_a_turn_that_is_withdrawn_goes_to_the_next() -> None:
    turns = WriterTurn()
    first, second, third = turns.request(), turns.request(), turns.request()
    turns.withdraw(second)
    turns.withdraw(first)
    assert third.done()


def test_a_forked_child_draws_identifiers_of_its_own() -> None:
    source, same = IdentifierSource(), IdentifierSource()
    same._random.setstate(source._random.getstate())
    same.begin_again()
    assert [source.write_id() for _ in range(3)] != [same.write_id() for _ in range(3)]
