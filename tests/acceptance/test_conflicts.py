"""Transactions that get in each other's way: conflicts are tried again, end once, and reach nobody."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS
from tests.acceptance.books import COLOURS, QUICK, Account, Colour, World
from tests.acceptance.keepers import keeper
from tests.acceptance.ledger import Ledger
from tests.databases import TestDatabase
from tests.processes import ChildProcess, Processes, eventually

PATIENCE = 20.0
NAMES = ("first", "second")


@pytest.fixture
def accounts(postgresql_database: TestDatabase) -> Ledger:
    """Two accounts, for two transactions to quarrel about."""
    ledger = Ledger(postgresql_database)
    with Session(postgresql_database.make_engine()) as session, session.begin():
        session.add_all(Account(name=name, postings=0) for name in NAMES)
    return ledger


class Quarrel:
    """Two transactions that meet in their first attempt, and what became of every attempt."""

    def __init__(self) -> None:
        self._meeting = threading.Barrier(2)
        self.attempts: list[int] = []

    def meet(self, attempt: int) -> None:
        self.attempts.append(attempt)
        if attempt == 1:
            self._meeting.wait(PATIENCE)


def count_up(session: Session, quarrel: Quarrel, attempt: int) -> None:
    """Read, meet, write: one of two snapshots is stale then (40001)."""
    account = session.get_one(Account, "first")
    seen = account.postings
    quarrel.meet(attempt)
    account.postings = seen + 1


def lock_crosswise(session: Session, quarrel: Quarrel, attempt: int, names: tuple[str, str]) -> None:
    """Lock one row, meet, lock the other one: a deadlock (40P01)."""
    session.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
    lock_and_count(session, names[0])
    quarrel.meet(attempt)
    lock_and_count(session, names[1])


def lock_and_count(session: Session, name: str) -> None:
    account = session.scalars(select(Account).where(Account.name == name).with_for_update()).one()
    account.postings += 1
    session.flush()


def quarrel_in_threads(ledger: Ledger, quarrel: Quarrel, conflict: str) -> None:
    dbos = DBOS(ledger.database.make_engine(), name="books", config=QUICK)

    @dbos.transaction(isolation_level="SERIALIZABLE")
    def serialize(session: Session) -> None:
        count_up(session, quarrel, dbos.current.attempt)

    @dbos.transaction
    def lock(session: Session, turned: bool) -> None:
        lock_crosswise(session, quarrel, dbos.current.attempt, NAMES[::-1] if turned else NAMES)

    @dbos.workflow
    def workflow(turned: bool) -> None:
        serialize() if conflict == "40001" else lock(turned)

    with dbos, ThreadPoolExecutor(2) as threads:
        for called in [threads.submit(workflow, turned) for turned in (False, True)]:
            called.result(PATIENCE)


async def quarrel_in_tasks(ledger: Ledger, quarrel: Quarrel, conflict: str) -> None:
    dbos = AsyncDBOS(ledger.database.async_url, name="books", config=QUICK)

    @dbos.transaction(isolation_level="SERIALIZABLE")
    async def serialize(session: AsyncSession) -> None:
        account = await session.get_one(Account, "first")
        seen = account.postings
        await asyncio.to_thread(quarrel.meet, dbos.current.attempt)
        account.postings = seen + 1

    @dbos.transaction
    async def lock(session: AsyncSession, turned: bool) -> None:
        names = NAMES[::-1] if turned else NAMES
        await session.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
        await session.run_sync(lock_and_count, names[0])
        await asyncio.to_thread(quarrel.meet, dbos.current.attempt)
        await session.run_sync(lock_and_count, names[1])

    @dbos.workflow
    async def workflow(turned: bool) -> None:
        await (serialize() if conflict == "40001" else lock(turned))

    async with dbos:
        await asyncio.gather(workflow(False), workflow(True))


@pytest.mark.parametrize("conflict", ["40001", "40P01"])
@pytest.mark.parametrize("colour", COLOURS)
def test_transactional_steps_in_conflict_are_tried_again_and_take_effect_once(
    accounts: Ledger, colour: Colour, conflict: str
) -> None:
    quarrel = Quarrel()
    if colour == "sync":
        quarrel_in_threads(accounts, quarrel, conflict)
    else:
        asyncio.run(quarrel_in_tasks(accounts, quarrel, conflict))
    expected = {"first": 2, "second": 0} if conflict == "40001" else {"first": 2, "second": 2}
    assert accounts.accounts() == expected
    # Both went through at the first attempt and one of them once more: it was a conflict, and no accident.
    assert sorted(quarrel.attempts) == [1, 1, 2]
    assert accounts.errors_of_steps() == []


# -- one writer, many who want to be it -----------------------------------------------------------


@pytest.fixture
def writers(processes: Processes) -> ChildProcess:
    child = processes.start_module("tests.acceptance.worker", "forks")
    child.wait_for_line("ready")
    return child


@pytest.mark.parametrize("colour", COLOURS)
def test_on_sqlite_no_lock_of_another_thread_or_process_reaches_anybody(
    writers: ChildProcess, processes: Processes, sqlite_database: TestDatabase, world: World, colour: Colour
) -> None:
    ledger = Ledger(sqlite_database)
    task: dict[str, Any] = {
        "task": "load",
        "colour": colour,
        "url": ledger.address,
        "world": str(world.file),
        "prefix": "other",
    }
    writers.send_line(json.dumps(task))
    other = int(writers.wait_for_line("loading").split()[1])
    numbers = [f"own-{number}" for number in range(16)]
    with keeper(colour, sqlite_database.url, world) as books, ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda number: books.call("brief", number, number), numbers))
        assert set(results) == {1 + 2 + 3}
        os.kill(other, signal.SIGKILL)
        writers.wait_for_line("ended -9")
        eventually(lambda: not ledger.unfinished())
    assert "locked" not in writers.errors
    assert sum(line.startswith("stored") for line in writers.lines) > 5
    ledger.check_brief(ledger.statuses(), world)
