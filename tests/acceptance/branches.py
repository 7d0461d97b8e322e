"""The books of a firm with a branch: some of its rows are in a database of their own, without the workflows."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from dbos_orm import Config
from tests.acceptance.books import QUICK, Colour, Keeper, Note, World, post
from tests.acceptance.keepers import AsyncKeeper, SyncKeeper
from tests.engines import async_engine_for, async_url, engine_for

TOTAL = 1 + 1 + 2 + 2
"""What ``both`` gives: the postings of its account so far, in either database."""


class SyncBranch(SyncKeeper):
    """The books in sync code."""

    def __init__(self, url: URL | str, other: URL | str, world: World, config: Config, process: int) -> None:
        super().__init__(url, world, config=config)
        self._other = other
        self._maker = sessionmaker[Session]()
        dbos, maker, post_here = self.application, self._maker, self._post

        @dbos.transaction(name="post there", sessionmaker=maker)
        def post_there(session: Session, account: str, step: str) -> int:
            return post(session, dbos.current.workflow_id, step, account)

        @dbos.transaction(name="refuse there", sessionmaker=maker)
        def refuse_there(session: Session, account: str) -> None:
            post(session, dbos.current.workflow_id, "refused", account)
            session.flush()
            raise ValueError(account)

        @dbos.transaction(name="jot there", sessionmaker=maker)
        def jot_there(session: Session, process: int) -> int:
            session.add(Note(text="there"))
            return process

        @dbos.workflow(name="both", version="1")
        def both(account: str) -> int:
            total = post_there(account, "first") + post_here(account, "first")
            with suppress(ValueError):
                refuse_there(account)
            return total + post_there(account, "last") + post_here(account, "last")

        @dbos.workflow(name="note", version="1")
        def note() -> int:
            return jot_there(process)

        self._workflows |= {"both": both, "note": note}

    def bind(self) -> None:
        super().bind()
        self._maker.configure(bind=engine_for(self._other))

    def close(self) -> None:
        super().close()
        self._maker.kw["bind"].dispose()


class AsyncBranch(AsyncKeeper):
    """The books in coroutines."""

    def __init__(self, url: URL | str, other: URL | str, world: World, config: Config, process: int) -> None:
        super().__init__(url, world, config=config)
        self._other = other
        self._maker = async_sessionmaker[AsyncSession]()
        dbos, maker, post_here = self.application, self._maker, self._post

        @dbos.transaction(name="post there", sessionmaker=maker)
        async def post_there(session: AsyncSession, account: str, step: str) -> int:
            return await session.run_sync(post, dbos.current.workflow_id, step, account)

        @dbos.transaction(name="refuse there", sessionmaker=maker)
        async def refuse_there(session: AsyncSession, account: str) -> None:
            await session.run_sync(post, dbos.current.workflow_id, "refused", account)
            await session.flush()
            raise ValueError(account)

        @dbos.transaction(name="jot there", sessionmaker=maker)
        async def jot_there(session: AsyncSession, process: int) -> int:
            session.add(Note(text="there"))
            return process

        @dbos.workflow(name="both", version="1")
        async def both(account: str) -> int:
            total = await post_there(account, "first") + await post_here(account, "first")
            with suppress(ValueError):
                await refuse_there(account)
            return total + await post_there(account, "last") + await post_here(account, "last")

        @dbos.workflow(name="note", version="1")
        async def note() -> int:
            return await jot_there(process)

        self._workflows |= {"both": both, "note": note}

    async def _bind(self) -> None:
        await super()._bind()
        self._maker.configure(bind=async_engine_for(async_url(self._other)))

    async def _close(self) -> None:
        await super()._close()
        await self._maker.kw["bind"].dispose()


def branch(
    colour: Colour, url: URL | str, other: URL | str, world: World, *, process: int = 0, config: Config = QUICK
) -> Keeper:
    """The books of the firm in one colour; ``process`` is what its notes return."""
    kind: Any = SyncBranch if colour == "sync" else AsyncBranch
    books: Keeper = kind(url, other, world, config, process)
    return books
