"""Who closes the session of a transactional step whose flow ends in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from dbos_orm._drivers.async_driver import AsyncDriver
from dbos_orm._drivers.sessions import Database, SessionSource
from dbos_orm._drivers.sync_driver import SyncDriver
from dbos_orm._drivers.writer_turn import WriterTurn
from dbos_orm._flows import effects
from dbos_orm._flows.effects import Flow
from dbos_orm._outcomes import Returned

NOTHING: Any = None
DIALECT: Any = SimpleNamespace(is_guest=False)


class InterruptedSession(Session):
    """Ctrl-C comes while it commits."""

    def commit(self) -> None:
        raise KeyboardInterrupt


class SlowSession:
    """Stands for an AsyncSession whose commit takes as long as the test wants."""

    def __init__(self) -> None:
        self.is_committing = asyncio.Event()
        self.may_end = asyncio.Event()
        self.events: list[str] = []

    async def run_sync(self, function: Callable[..., Any], *_: object) -> None:
        if function.__name__ == "commit":
            self.is_committing.set()
            await self.may_end.wait()
            self.events.append("committed")

    async def close(self) -> None:
        self.events.append("closed")


def committing(source: SessionSource) -> Flow[None]:
    opened = yield from effects.OpenSession(source, "transaction")
    assert isinstance(opened, Returned)
    yield from effects.Commit(opened.value)


def source_of_one_writer(make: Callable[..., Any], turns: WriterTurn) -> SessionSource:
    return SessionSource(make, NOTHING, DIALECT, Database(is_own=True, writer=turns))


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


def test_a_turn_at_writing_is_given_back_once_when_a_commit_is_interrupted(engine: Engine) -> None:
    turns = WriterTurn()
    line: list[Any] = []

    def make(**_: object) -> Session:
        line.append(turns.request())
        return InterruptedSession(engine)

    driver = SyncDriver(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)

    with pytest.raises(KeyboardInterrupt):
        driver.run(committing(source_of_one_writer(make, turns)))

    assert line[0].done()
    assert not turns.request().done(), "two have the turn"


async def test_a_session_is_closed_once_and_only_behind_its_commit_when_the_task_is_cancelled() -> None:
    session = SlowSession()
    turns = WriterTurn()
    driver = AsyncDriver(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
    task = asyncio.create_task(driver.run(committing(source_of_one_writer(lambda **_: session, turns))))
    await session.is_committing.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert session.events == []

    session.may_end.set()
    await asyncio.wait_for(asyncio.wrap_future(turns.request()), 30)
    assert session.events == ["committed", "closed"]
