"""Processes that tell one another that work waits: two applications of one name on one database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from dbos_orm import DBOS, AsyncDBOS, Config
from dbos_orm._application import AnyDBOS
from dbos_orm._drivers.hints import Hints
from tests.databases import TestDatabase
from tests.engines import async_engine_for, engine_for
from tests.integration.shop import is_settled
from tests.processes import eventually

ASYNCHRONOUS = ["asyncpg", "psycopg_async"]
DRIVERS = ["psycopg2", "psycopg", *ASYNCHRONOUS]
QUIET = Config(tick=60)
"""Nothing is found by looking again and again."""


class Heard:
    """Stands in for the dispatcher of a launch."""

    def __init__(self, hints: Hints) -> None:
        self.waiting: list[tuple[str, str]] = []
        self.looks = 0
        self.threads: set[str] = set()
        hints.dispatcher, hints.look_everywhere = self._dispatch, self._look

    def _dispatch(self, queue: str, name: str, is_expected: bool) -> bool:
        self.threads.add(threading.current_thread().name)
        self.waiting.append((queue, name))
        return True

    def _look(self) -> None:
        self.looks += 1


class Applications:
    """Makes applications named ``shop``, each on an engine of its own with a driver, as other processes would be."""

    def __init__(self, database: TestDatabase, stack: ExitStack) -> None:
        self._url = database.url
        self._stack = stack

    def make(self, driver: str, *, url: URL | None = None, name: str = "shop") -> AnyDBOS:
        """One that is bound."""
        url = (url or self._url).set(drivername=f"postgresql+{driver.removesuffix('_async')}")
        if driver in ASYNCHRONOUS:
            application: AnyDBOS = AsyncDBOS(async_engine_for(url), name=name, config=QUIET)
        else:
            engine = engine_for(url)
            self._stack.callback(engine.dispose)
            application = DBOS(engine, name=name, config=QUIET)
        self._stack.callback(application.shut_down, 0)
        return application

    def launch(self, driver: str, *, url: URL | None = None, name: str = "shop") -> AnyDBOS:
        """One that executes workflows."""
        application = self.make(driver, url=url, name=name)
        if isinstance(application, AsyncDBOS):
            asyncio.run(launch_async(application))
        elif isinstance(application, DBOS):
            application.launch()
        return application

    def listen(self, driver: str, *, url: URL | None = None, name: str = "shop") -> Heard:
        """What one that executes workflows hears."""
        application = self.launch(driver, url=url, name=name)
        heard = Heard(hints_of(application))
        eventually(lambda: is_settled(application))
        return heard


async def launch_async(application: AsyncDBOS) -> None:
    await application.launch()
    # Its loop ends here; that of its services does not.
    binding = application._runtime.bound("test")
    await AsyncEngine(binding.engine).dispose()


def hints_of(application: AnyDBOS) -> Hints:
    return application._runtime.bound("test").hints


@pytest.fixture
def applications(applications: None, postgresql_database: TestDatabase) -> Iterator[Applications]:
    with ExitStack() as stack:
        yield Applications(postgresql_database, stack)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_process_hears_at_once_of_what_waits_in_another(applications: Applications, driver: str) -> None:
    heard, teller = applications.listen(driver), applications.make(driver)
    for name in ("a", "b", "b", "c"):
        hints_of(teller).announce("mail", name)
    eventually(lambda: set(heard.waiting) == {("mail", "a"), ("mail", "b"), ("mail", "c")})
    assert heard.looks == 0
