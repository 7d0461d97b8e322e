"""Processes that tell one another that work waits: two applications of one name on one database."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from sqlalchemy import URL, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Config
from dbos_orm._application import AnyDBOS
from dbos_orm._dialects import Listener, open_listener
from dbos_orm._drivers.hints import Hints
from dbos_orm._services import listener as listening
from dbos_orm._store.entries import INTERNAL_QUEUE
from dbos_orm._store.notices import notify
from tests.conftest import MakeDatabase
from tests.databases import POSTGRESQL, TestDatabase
from tests.engines import async_engine_for, engine_for
from tests.integration.shop import is_settled
from tests.processes import Processes, eventually

ASYNCHRONOUS = ["asyncpg", "psycopg_async"]
DRIVERS = ["psycopg2", "psycopg", *ASYNCHRONOUS]
QUIET = Config(tick=60)
"""Nothing is found by looking again and again."""


class Heard:
    """Stands in for the dispatcher of a launch."""

    def __init__(self, hints: Hints) -> None:
        self.hints = hints
        self.waiting: list[tuple[str, str]] = []
        self.looks = 0
        hints.dispatcher, hints.look_everywhere = self._dispatch, self._look

    def _dispatch(self, queue: str, name: str, is_expected: bool) -> bool:
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
        return self.hearing(self.launch(driver, url=url, name=name))

    def hearing(self, application: AnyDBOS) -> Heard:
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


def test_a_process_of_another_application_or_database_hears_nothing(
    applications: Applications, make_database: MakeDatabase
) -> None:
    other, elsewhere = applications.listen("psycopg2", name="bank"), make_database(POSTGRESQL)
    distant = applications.listen("psycopg2", url=elsewhere.url)
    heard = applications.listen("psycopg2")
    hints_of(applications.make("psycopg")).announce("mail", "a")
    eventually(lambda: heard.waiting)
    assert (other.waiting, distant.waiting) == ([], [])


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_a_process_does_not_hear_itself(applications: Applications, driver: str) -> None:
    application = applications.launch(driver)
    heard, other = applications.hearing(application), applications.listen("psycopg2")
    hints_of(application).tell_others("mail", "a")
    eventually(lambda: other.waiting == [("mail", "a")])
    # What comes later has arrived, so what came before has, too.
    hints_of(applications.make("psycopg2")).announce("mail", "b")
    eventually(lambda: ("mail", "b") in heard.waiting)
    assert heard.waiting == [("mail", "b")]


@pytest.mark.parametrize("driver", DRIVERS)
def test_whose_listening_connection_is_lost_listens_again_and_looks_at_everything(
    applications: Applications, postgresql_database: TestDatabase, driver: str
) -> None:
    heard, teller = applications.listen(driver), applications.make("psycopg2")
    hints_of(teller).announce("mail", "a")
    eventually(lambda: heard.waiting)
    for _ in range(2):
        looks = heard.looks
        assert kill_listeners(postgresql_database) == 1
        eventually(partial(has_looked_more, heard, looks))
        heard.waiting.clear()
        hints_of(teller).announce("mail", "b")
        eventually(lambda: heard.waiting == [("mail", "b")])


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_where_listen_does_not_deliver_it_is_said_once_and_tried_again(
    applications: Applications, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, driver: str
) -> None:
    closed: list[str] = []

    def open_deaf(engine: Engine, channel: str, heard: Callable[[str], None]) -> Listener:
        closed.append(channel)
        return open_listener(engine, "another", heard)

    monkeypatch.setattr(listening, "_PROOF_SECONDS", 0.05)
    monkeypatch.setattr(listening, "_REFUSED_SECONDS", 0.05)
    monkeypatch.setattr(listening, "open_listener", open_deaf)
    with caplog.at_level(logging.WARNING):
        application = applications.launch(driver)
        eventually(lambda: len(closed) > 2)
    assert not hints_of(application).is_listening
    assert [record.getMessage()[:23] for record in caplog.records] == ["LISTEN does not deliver"]
    monkeypatch.setattr(listening, "open_listener", open_listener)
    heard = applications.hearing(application)
    hints_of(applications.make("psycopg2")).announce("mail", "a")
    eventually(lambda: heard.waiting)


def test_a_connection_that_has_gone_deaf_is_noticed(
    applications: Applications, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = threading.Event()
    opened: list[str] = []

    def open_deafened(engine: Engine, channel: str, heard: Callable[[str], None]) -> Listener:
        deaf.clear()
        opened.append(channel)
        return open_listener(engine, channel, lambda text: None if deaf.is_set() else heard(text))

    monkeypatch.setattr(listening, "_PROOF_SECONDS", 0.2)
    monkeypatch.setattr(listening, "_PROVEN_SECONDS", 0.05)
    monkeypatch.setattr(listening, "open_listener", open_deafened)
    heard = applications.listen("psycopg2")
    assert len(opened) == 1
    deaf.set()
    eventually(lambda: len(opened) == 2)
    eventually(lambda: heard.looks)


def test_a_notice_does_not_wait_for_the_disk(applications: Applications, postgresql_database: TestDatabase) -> None:
    binding = applications.make("psycopg2")._runtime.bound("test")
    unflushed = text("SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()")
    with binding.gateway.engine.connect() as connection:

        def leaves_unflushed() -> bool:
            # The server flushes by itself five times a second, perhaps just now.
            notify(connection, binding.dialect, "dbos_test", "x")
            return bool(connection.execute(unflushed).scalar_one())

        eventually(leaves_unflushed)


def test_a_start_is_told_behind_its_commit(applications: Applications, postgresql_database: TestDatabase) -> None:
    seen: list[int] = []
    heard, teller = applications.listen("psycopg2"), applications.make("psycopg2")
    assert isinstance(teller, DBOS)

    @teller.workflow
    def work() -> None: ...

    def count(queue: str, name: str, is_expected: bool) -> bool:
        with postgresql_database.make_engine().connect() as connection:
            seen.append(connection.execute(text("SELECT count(*) FROM dbos_workflow_status")).scalar_one())
        return heard._dispatch(queue, name, is_expected)

    heard.hints.dispatcher = count
    name = teller._runtime.application.registry.runnable()[0].name
    work.start()
    eventually(lambda: heard.waiting == [(INTERNAL_QUEUE, name)])
    with Session(teller._runtime.bound("test").engine) as session:
        work.start_in(session)
        session.rollback()
        work.start_in(session)
        session.commit()
    eventually(lambda: heard.waiting == [(INTERNAL_QUEUE, name)] * 2)
    assert seen == [1, 2]


@pytest.mark.parametrize("driver", DRIVERS)
def test_shutdown_ends_listening_at_once(
    applications: Applications, postgresql_database: TestDatabase, driver: str
) -> None:
    application = applications.launch(driver)
    applications.hearing(application)
    began = time.monotonic()
    application.shut_down(0)
    assert time.monotonic() - began < 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dbos-shop-listener")]
    eventually(lambda: kill_listeners(postgresql_database) == 0)


def has_looked_more(heard: Heard, looks: int) -> bool:
    return heard.looks > looks


def kill_listeners(database: TestDatabase) -> int:
    """Kill the server processes whose last statement was a LISTEN; say how many there were."""
    with database.make_engine().begin() as connection:
        killed = connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )
        return len(killed.all())


FORKER = """
    import gc, os, sys
    from dbos_orm import DBOS, Config
    from tests.engines import engine_for
    from tests.processes import eventually

    dbos = DBOS(engine_for(sys.argv[1]), name="shop", config=Config(tick=60))
    heard = []
    dbos.launch()
    hints = dbos._runtime.binding.hints
    hints.dispatcher = lambda queue, name, is_expected: heard.append(name) is None
    hints.look_everywhere = lambda: print("looked", flush=True)
    eventually(lambda: hints.is_listening)
    for number in range(2):
        child = os.fork()
        if child == 0:
            gc.collect()
            dbos._runtime.bound("test").hints.announce("mail", f"of child {number}")
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        eventually(lambda: len(heard) > number)
    print(heard, flush=True)
    dbos.shutdown()
"""


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_forked_child_tells_its_parent_and_leaves_its_connection_alone(
    processes: Processes, postgresql_database: TestDatabase, driver: str
) -> None:
    url = postgresql_database.url.set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)
    assert processes.start_script(FORKER, url).succeed() == ["['of child 0', 'of child 1']"]
