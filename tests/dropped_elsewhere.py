"""Workflows with transactions on a second database, for dropping them at every effect."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from dbos_orm import DBOS, AsyncDBOS
from dbos_orm.errors import SerializationError
from tests.dropped_workflows import RETRY, Interruption, Journal, conflict, posting


# A list of small functions is not a long function.
def register_elsewhere(dbos: DBOS, journal: Journal, maker: sessionmaker[Session]) -> Mapping[str, Any]:  # noqa: C901
    """The workflows by name, on an application; ``maker`` makes sessions on the second database."""
    workflows: dict[str, Any] = {}

    def scenario(workflow: Any) -> None:
        workflows[workflow.name.rpartition(".")[2]] = workflow

    @dbos.transaction(sessionmaker=maker)
    def report(session: Session, note: str) -> str:
        session.add(posting(note))
        return note

    @dbos.transaction(sessionmaker=maker)
    def report_and_fail(session: Session, note: str) -> str:
        session.add(posting(note))
        session.flush()
        raise ValueError(note)

    @dbos.transaction(sessionmaker=maker)
    def report_and_return_a_lock(session: Session, note: str) -> object:
        session.add(posting(note))
        return threading.Lock()

    @dbos.transaction(sessionmaker=maker)
    def report_in_conflict(session: Session, note: str) -> str:
        session.add(posting(note))
        session.flush()
        if dbos.current.attempt == 1:
            raise conflict()
        return note

    late = sessionmaker[Session]()

    @dbos.transaction(sessionmaker=late)
    def report_late(session: Session, note: str) -> str:
        session.add(posting(note))
        return note

    @dbos.transaction
    def post(session: Session, note: str) -> str:
        session.add(posting(note))
        return note

    @dbos.step(retry=RETRY)
    def succeed_at(attempt: int) -> int:
        if journal.note() < attempt:
            raise ValueError(f"attempt {attempt} is awaited")
        return attempt

    @scenario
    @dbos.workflow
    def elsewhere() -> str:
        return report("once")

    @scenario
    @dbos.workflow
    def both() -> list[str]:
        return [post("here"), report("there"), post("here again"), report("there again")]

    @scenario
    @dbos.workflow
    def rolled_back() -> str:
        try:
            return report_and_fail("never")
        except ValueError:
            return report("instead")

    @scenario
    @dbos.workflow
    def refused() -> str:
        try:
            report_and_return_a_lock("never")
        except SerializationError as error:
            return error.path
        return "never"

    @scenario
    @dbos.workflow
    def conflicting() -> str:
        return report_in_conflict("once")

    @scenario
    @dbos.workflow
    def interrupted() -> str:
        before = report("before")
        if journal.is_first_time():
            raise Interruption
        return before + report("behind")

    @scenario
    @dbos.workflow
    def mixture() -> str:
        # Another engine each time, so that its database is looked for each time.
        late.configure(bind=maker.kw["bind"].execution_options())
        found = report_late(str(succeed_at(2)))
        post("behind")
        return found

    return workflows


def register_elsewhere_async(  # noqa: C901
    dbos: AsyncDBOS, journal: Journal, maker: async_sessionmaker[AsyncSession]
) -> Mapping[str, Any]:
    """``register_elsewhere`` for coroutines."""
    workflows: dict[str, Any] = {}

    def scenario(workflow: Any) -> None:
        workflows[workflow.name.rpartition(".")[2]] = workflow

    @dbos.transaction(sessionmaker=maker)
    async def report(session: AsyncSession, note: str) -> str:
        session.add(posting(note))
        return note

    @dbos.transaction(sessionmaker=maker)
    async def report_and_fail(session: AsyncSession, note: str) -> str:
        session.add(posting(note))
        await session.flush()
        raise ValueError(note)

    @dbos.transaction(sessionmaker=maker)
    async def report_and_return_a_lock(session: AsyncSession, note: str) -> object:
        session.add(posting(note))
        return threading.Lock()

    @dbos.transaction(sessionmaker=maker)
    async def report_in_conflict(session: AsyncSession, note: str) -> str:
        session.add(posting(note))
        await session.flush()
        if dbos.current.attempt == 1:
            raise conflict()
        return note

    late = async_sessionmaker[AsyncSession]()

    @dbos.transaction(sessionmaker=late)
    async def report_late(session: AsyncSession, note: str) -> str:
        session.add(posting(note))
        return note

    @dbos.transaction
    async def post(session: AsyncSession, note: str) -> str:
        session.add(posting(note))
        return note

    @dbos.step(retry=RETRY)
    async def succeed_at(attempt: int) -> int:
        if journal.note() < attempt:
            raise ValueError(f"attempt {attempt} is awaited")
        return attempt

    @scenario
    @dbos.workflow
    async def elsewhere() -> str:
        return await report("once")

    @scenario
    @dbos.workflow
    async def both() -> list[str]:
        return [await post("here"), await report("there"), await post("here again"), await report("there again")]

    @scenario
    @dbos.workflow
    async def rolled_back() -> str:
        try:
            return await report_and_fail("never")
        except ValueError:
            return await report("instead")

    @scenario
    @dbos.workflow
    async def refused() -> str:
        try:
            await report_and_return_a_lock("never")
        except SerializationError as error:
            return error.path
        return "never"

    @scenario
    @dbos.workflow
    async def conflicting() -> str:
        return await report_in_conflict("once")

    @scenario
    @dbos.workflow
    async def interrupted() -> str:
        before = await report("before")
        if journal.is_first_time():
            raise Interruption
        return before + await report("behind")

    @scenario
    @dbos.workflow
    async def mixture() -> str:
        # Another engine each time, so that its database is looked for each time.
        late.configure(bind=maker.kw["bind"].execution_options())
        found = await report_late(str(await succeed_at(2)))
        await post("behind")
        return found

    return workflows
