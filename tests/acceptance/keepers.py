"""The books in both colours."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import URL, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Config, Retry, WorkflowState
from tests.acceptance.books import BRIEF_STEPS, QUICK, Colour, Keeper, Note, World, nowhere, post
from tests.engines import async_engine_for, async_url, engine_for

T = TypeVar("T")


class SyncKeeper(Keeper):
    """The books in sync code."""

    def __init__(
        self,
        url: URL | str,
        world: World,
        at: Callable[[str], None] = nowhere,
        config: Config = QUICK,
    ) -> None:
        super().__init__(url, world, at)
        self.application: DBOS = DBOS(name="books", config=config)
        self._engine: Engine | None = None
        self._workflows: dict[str, Any] = {}
        self._register_steps(self.application)
        self._register_transactions(self.application)
        self._register_families(self.application)
        self._register_single(self.application)

    def bind(self) -> None:
        self._engine = engine_for(self._url)
        self.application.bind(self._engine)

    def launch(self) -> None:
        self.application.launch()

    def close(self) -> None:
        self.application.shutdown(10)
        # A shutdown that follows no launch leaves the binding open.
        self.application._unbind()
        if self._engine is not None:
            self._engine.dispose()

    @property
    def driver(self) -> Any:
        binding = self.application._runtime.binding
        assert binding is not None
        return binding.driver

    def call(self, workflow: str, workflow_id: str, *arguments: Any) -> Any:
        return self._workflows[workflow].options(workflow_id=workflow_id)(*arguments)

    def start(self, workflow: str, workflow_id: str, *arguments: Any) -> None:
        self._workflows[workflow].options(workflow_id=workflow_id).start(*arguments)

    def result(self, workflow_id: str, *, timeout: float = 20) -> Any:
        return self.application.handle(workflow_id).result(timeout)

    def status(self, workflow_id: str) -> WorkflowState:
        return self.application.handle(workflow_id).status()

    def cancel(self, workflow_id: str) -> None:
        self.application.handle(workflow_id).cancel()

    def _register_steps(self, dbos: DBOS) -> None:
        world, at = self._world, self._at

        @dbos.step(name="visit")
        def visit(name: str) -> str:
            return world.visit(dbos.current.workflow_id, name)

        @dbos.step(name="unreliable", retry=Retry(max_attempts=2, backoff=0.01))
        def unreliable() -> int:
            if dbos.current.attempt == 1:
                raise RuntimeError("always at first")
            return dbos.current.attempt

        @dbos.step(name="hold")
        def hold() -> int:
            at("step")
            return os.getpid()

        self._visit, self._unreliable, self._hold = visit, unreliable, hold

    def _register_transactions(self, dbos: DBOS) -> None:
        at = self._at

        @dbos.transaction(name="post")
        def post_once(session: Session, account: str, step: str) -> int:
            return post(session, dbos.current.workflow_id, step, account)

        @dbos.transaction(name="refuse")
        def refuse(session: Session, account: str) -> None:
            post(session, dbos.current.workflow_id, "refused", account)
            session.flush()
            raise ValueError(account)

        @dbos.transaction(name="jot")
        def jot(session: Session, text: str) -> int:
            session.add(Note(text=text))
            session.flush()
            at("transaction")
            return os.getpid()

        self._post, self._refuse, self._jot = post_once, refuse, jot

    def _register_families(self, dbos: DBOS) -> None:
        at, visit, post_once = self._at, self._visit, self._post
        unreliable, refuse = self._unreliable, self._refuse

        @dbos.workflow(name="part")
        def part(account: str, delay: float = 0) -> int:
            dbos.sleep(delay)
            visit("part")
            return post_once(account, "part")

        @dbos.workflow(name="idle")
        def idle() -> None:
            dbos.sleep(60)

        @dbos.workflow(name="keep")
        def keep(account: str) -> int:
            visit("first")
            unreliable()
            total = post_once(account, "first")
            with suppress(ValueError):
                refuse(account)
            total += part(account)
            handle = part.start(account, delay=0.15)  # long enough to be awaited
            total += handle.result()
            waiting = idle.start()
            waiting.cancel()
            total += sum(dbos.gather(*[post_once.submit(account, side) for side in ("left", "right")]))
            dbos.sleep(0.05)
            dbos.step(time.sleep, name="linger").submit(0.05)  # goes on when the function returns
            return total

        @dbos.workflow(name="family")
        def family(account: str) -> int:
            at("child")
            return part.start(account).result()

        self._workflows |= {"keep": keep, "family": family}

    def _register_single(self, dbos: DBOS) -> None:
        world, at, visit, post_once = self._world, self._at, self._visit, self._post
        hold, jot = self._hold, self._jot

        @dbos.workflow(name="brief")
        def brief(account: str) -> int:
            total = 0
            for number in range(BRIEF_STEPS):
                world.acknowledge(dbos.current.workflow_id, str(number), visit(str(number)))
                total += post_once(account, str(number))
            return total

        @dbos.workflow(name="held")
        def held(place: str) -> int:
            visit("before")
            found = 0
            if place == "step":
                found = hold()
            elif place == "transaction":
                found = jot("held")
            else:
                at("end")
                found = os.getpid()
            return found

        self._workflows |= {"brief": brief, "held": held}


class AsyncKeeper(Keeper):
    """The books in coroutines, on an event loop in a thread of their own."""

    def __init__(
        self,
        url: URL | str,
        world: World,
        at: Callable[[str], None] = nowhere,
        config: Config = QUICK,
    ) -> None:
        super().__init__(url, world, at)
        self.application: AsyncDBOS = AsyncDBOS(name="books", config=config)
        self._engine: AsyncEngine | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="books", daemon=True)
        self._workflows: dict[str, Any] = {}
        self._register_steps(self.application)
        self._register_transactions(self.application)
        self._register_families(self.application)
        self._register_single(self.application)

    def bind(self) -> None:
        self._thread.start()
        self._wait(self._bind())

    def launch(self) -> None:
        self._wait(self._launch())

    def close(self) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the workflows run on."""
        return self._loop

    @property
    def driver(self) -> Any:
        binding = self.application._runtime.binding
        assert binding is not None
        return binding.async_driver

    def call(self, workflow: str, workflow_id: str, *arguments: Any) -> Any:
        return self._wait(self._call(workflow, workflow_id, arguments))

    def submit(self, workflow: str, workflow_id: str, *arguments: Any) -> Future[Any]:
        """``call`` without waiting; cancelling the future cancels the task of the call."""
        return asyncio.run_coroutine_threadsafe(self._call(workflow, workflow_id, arguments), self._loop)

    def start(self, workflow: str, workflow_id: str, *arguments: Any) -> None:
        self._wait(self._start(workflow, workflow_id, arguments))

    def result(self, workflow_id: str, *, timeout: float = 20) -> Any:
        return self._wait(self.application.handle(workflow_id).result(timeout))

    def status(self, workflow_id: str) -> WorkflowState:
        return self._wait(self.application.handle(workflow_id).status())

    def cancel(self, workflow_id: str) -> None:
        self._wait(self.application.handle(workflow_id).cancel())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _bind(self) -> None:
        self._engine = async_engine_for(async_url(self._url))
        self.application.bind(self._engine)

    async def _launch(self) -> None:
        await self.application.launch()

    async def _close(self) -> None:
        await self.application.shutdown(10)
        await asyncio.to_thread(self.application._unbind)
        if self._engine is not None:
            await self._engine.dispose()

    async def _call(self, workflow: str, workflow_id: str, arguments: tuple[Any, ...]) -> Any:
        return await self._workflows[workflow].options(workflow_id=workflow_id)(*arguments)

    async def _start(self, workflow: str, workflow_id: str, arguments: tuple[Any, ...]) -> None:
        await self._workflows[workflow].options(workflow_id=workflow_id).start(*arguments)

    def _register_steps(self, dbos: AsyncDBOS) -> None:
        world, at = self._world, self._at

        @dbos.step(name="visit")
        async def visit(name: str) -> str:
            return world.visit(dbos.current.workflow_id, name)

        @dbos.step(name="unreliable", retry=Retry(max_attempts=2, backoff=0.01))
        async def unreliable() -> int:
            if dbos.current.attempt == 1:
                raise RuntimeError("always at first")
            return dbos.current.attempt

        @dbos.step(name="hold")
        async def hold() -> int:
            await asyncio.to_thread(at, "step")
            return os.getpid()

        self._visit, self._unreliable, self._hold = visit, unreliable, hold

    def _register_transactions(self, dbos: AsyncDBOS) -> None:
        at = self._at

        @dbos.transaction(name="post")
        async def post_once(session: AsyncSession, account: str, step: str) -> int:
            return await session.run_sync(post, dbos.current.workflow_id, step, account)

        @dbos.transaction(name="refuse")
        async def refuse(session: AsyncSession, account: str) -> None:
            await session.run_sync(post, dbos.current.workflow_id, "refused", account)
            await session.flush()
            raise ValueError(account)

        @dbos.transaction(name="jot")
        async def jot(session: AsyncSession, text: str) -> int:
            session.add(Note(text=text))
            await session.flush()
            await asyncio.to_thread(at, "transaction")
            return os.getpid()

        self._post, self._refuse, self._jot = post_once, refuse, jot

    def _register_families(self, dbos: AsyncDBOS) -> None:
        at, visit, post_once = self._at, self._visit, self._post
        unreliable, refuse = self._unreliable, self._refuse

        @dbos.workflow(name="part")
        async def part(account: str, delay: float = 0) -> int:
            await dbos.sleep(delay)
            await visit("part")
            return await post_once(account, "part")

        @dbos.workflow(name="idle")
        async def idle() -> None:
            await dbos.sleep(60)

        @dbos.workflow(name="keep")
        async def keep(account: str) -> int:
            await visit("first")
            await unreliable()
            total = await post_once(account, "first")
            with suppress(ValueError):
                await refuse(account)
            total += await part(account)
            handle = await part.start(account, delay=0.15)  # long enough to be awaited
            total += await handle.result()
            waiting = await idle.start()
            await waiting.cancel()
            total += sum(await dbos.gather(*[side(account, name) for name in ("left", "right")]))
            dbos.task(dbos.sleep(0.05))  # goes on when the function returns
            return total

        async def side(account: str, name: str) -> int:
            await visit(name)
            return await post_once(account, name)

        @dbos.workflow(name="family")
        async def family(account: str) -> int:
            await asyncio.to_thread(at, "child")
            handle = await part.start(account)
            return await handle.result()

        self._workflows |= {"keep": keep, "family": family}

    def _register_single(self, dbos: AsyncDBOS) -> None:
        world, at, visit, post_once = self._world, self._at, self._visit, self._post
        hold, jot = self._hold, self._jot

        @dbos.workflow(name="brief")
        async def brief(account: str) -> int:
            total = 0
            for number in range(BRIEF_STEPS):
                world.acknowledge(dbos.current.workflow_id, str(number), await visit(str(number)))
                total += await post_once(account, str(number))
            return total

        @dbos.workflow(name="held")
        async def held(place: str) -> int:
            await visit("before")
            found = 0
            if place == "step":
                found = await hold()
            elif place == "transaction":
                found = await jot("held")
            else:
                await asyncio.to_thread(at, "end")
                found = os.getpid()
            return found

        self._workflows |= {"brief": brief, "held": held}


def keeper(
    colour: Colour,
    url: URL | str,
    world: World,
    *,
    at: Callable[[str], None] = nowhere,
    config: Config = QUICK,
) -> Keeper:
    """The books in one colour."""
    kind = SyncKeeper if colour == "sync" else AsyncKeeper
    return kind(url, world, at, config)
