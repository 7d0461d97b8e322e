"""Performs the effects of transactional steps in the calling task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import greenlet_spawn

from dbos_orm._context import OpenTransaction
from dbos_orm._dialects import Fault
from dbos_orm._drivers import sessions
from dbos_orm._drivers.databases import Databases
from dbos_orm._drivers.service_loop import CoroutineGateway
from dbos_orm._drivers.sessions import SessionSource, as_source, source_of
from dbos_orm._flows import effects
from dbos_orm._flows.effects import Effect, Maker, Outcome, Unreachable
from dbos_orm._outcomes import Raised, Returned
from dbos_orm.errors import DatabaseUnavailableError


class AsyncSessions:
    """``Sessions`` for coroutines. Connections are opened on the loop of who uses them."""

    def __init__(self, databases: Databases, gateway: CoroutineGateway) -> None:
        self._databases = databases
        self._gateway = gateway

    def performers(self) -> dict[type[Effect[Any]], Callable[[Any], Awaitable[Any]]]:
        """The part of a driver's table that is performed here."""
        return {
            effects.Reach: self._reach,
            effects.Ask: self._ask,
            effects.OpenSession: self._open,
            effects.Flush: self._flush,
            effects.RecordIn: self._record_in,
            effects.Commit: self._commit,
            effects.Rollback: self._roll_back,
        }

    async def locate(self, maker: Maker) -> SessionSource:
        """``Databases.locate`` without blocking the loop."""
        await self._learn_own()
        source: SessionSource = await greenlet_spawn(self._databases.locate, maker)
        return source

    async def close(self, transaction: OpenTransaction) -> None:
        """Roll back what is open, give the connection back, and the turn at writing."""
        await self._close(source_of(transaction), transaction.session)

    async def _learn_own(self) -> None:
        if not self._databases.knows_own:
            await self._gateway.read_async(self._databases.learn_own)

    async def _reach(self, effect: effects.Reach) -> SessionSource | Unreachable:
        try:
            await self._learn_own()
        except DatabaseUnavailableError as error:
            return Unreachable(error, Fault.DISCONNECTED)
        reached: SessionSource | Unreachable = await greenlet_spawn(self._databases.reach, effect.maker)
        return reached

    async def _ask(self, effect: effects.Ask) -> Outcome:
        # Shielded: what is cancelled half-way would leave nobody to know whether it happened.
        asking = greenlet_spawn(self._databases.ask, as_source(effect.source), effect.verb)
        return await asyncio.shield(_outcome(asking))

    async def _open(self, effect: effects.OpenSession) -> Outcome:
        source = as_source(effect.source)
        turn = source.request_turn()
        if turn is not None:
            try:
                await asyncio.wrap_future(turn)
            except BaseException:
                source.withdraw_turn(turn)
                raise
        session: AsyncSession | None = None
        try:
            session = source.make()
            assert session is not None
            await session.run_sync(sessions.begin, source.dialect, effect.isolation_level, effect.statement_timeout)
        except BaseException as error:
            await asyncio.shield(self._close(source, session))
            if not isinstance(error, Exception):
                raise
            return Raised(error)
        return Returned(OpenTransaction(session, source, effect.name))

    async def _flush(self, effect: effects.Flush) -> Outcome:
        return await _outcome(effect.transaction.session.flush())

    async def _record_in(self, effect: effects.RecordIn) -> Outcome:
        session, dialect = effect.transaction.session, source_of(effect.transaction).dialect
        return await _outcome(session.run_sync(sessions.record, dialect, effect.entry))

    async def _commit(self, effect: effects.Commit) -> Outcome:
        # Shielded: a commit that is cancelled half-way would leave nobody to know whether it happened.
        return await asyncio.shield(self._commit_and_close(effect.transaction))

    async def _commit_and_close(self, transaction: OpenTransaction) -> Outcome:
        try:
            return await _outcome(transaction.session.run_sync(sessions.commit))
        finally:
            await self.close(transaction)

    async def _roll_back(self, effect: effects.Rollback) -> None:
        await asyncio.shield(self.close(effect.transaction))

    async def _close(self, source: SessionSource, session: AsyncSession | None) -> None:
        # Closing rolls back; if even that fails the connection is gone, and the transaction with it.
        try:
            if session is not None:
                await _outcome(session.close())
        finally:
            source.release_turn()


async def _outcome(awaitable: Awaitable[Any]) -> Outcome:
    try:
        return Returned(await awaitable)
    except Exception as error:
        return Raised(error)
