"""Noticing on SQLite what other processes commit."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dbos_orm import DBOS, AsyncDBOS, Config
from dbos_orm._application import AnyDBOS
from dbos_orm._dialects import FileWatch, _watching, open_watch
from tests.databases import TestDatabase
from tests.engines import async_engine_for
from tests.processes import PATIENCE, Processes, eventually

QUIET = Config(tick=60)

WRITER = """
    import sys
    from sqlalchemy import text
    from tests.engines import engine_for

    engine = engine_for(sys.argv[1])
    for line in sys.stdin:
        with engine.begin() as connection:
            for _ in range(int(line)):
                connection.execute(text("INSERT INTO written VALUES (1)"))
        print("written", flush=True)
"""


@pytest.fixture(params=["notified", "polling"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a file can be watched: with the kernel's help, and where there is none."""

    def nothing(file: Path) -> int | None:
        return None

    if request.param == "polling":
        monkeypatch.setattr(_watching, "_notified", nothing)
    return str(request.param)


@pytest.fixture
def engine(sqlite_database: TestDatabase) -> Engine:
    """Another program's engine on the file that is watched."""
    engine = sqlite_database.make_engine()
    write(engine, "CREATE TABLE written (number INTEGER)")
    return engine


@pytest.fixture
def watch(engine: Engine, kind: str) -> Iterator[FileWatch]:
    watch = open_watch(engine)
    yield watch
    watch.close()


def write(engine: Engine, statement: str = "INSERT INTO written VALUES (1)") -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def test_a_commit_changes_the_version_and_a_rollback_does_not(watch: FileWatch, engine: Engine) -> None:
    before = watch.version()
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text("INSERT INTO written VALUES (1)"))
        assert watch.version() == before
        transaction.rollback()
    assert watch.version() == before
    write(engine)
    assert watch.version() != before


def test_a_wait_ends_when_something_is_written_or_when_woken(watch: FileWatch, engine: Engine, kind: str) -> None:
    while watch.wait(0):
        pass
    write(engine)
    assert watch.wait(0.01) is (kind == "notified")
    assert watch.wait(0.01) is False
    watch.wake()
    assert watch.wait(PATIENCE) is False


def launched(database: TestDatabase, colour: str) -> AnyDBOS:
    if colour == "sync":
        return DBOS(database.make_engine(), name="shop", config=QUIET).launch()
    engine = async_engine_for(database.async_url)
    application = AsyncDBOS(engine, name="shop", config=QUIET)

    async def launch() -> None:
        await application.launch()
        await engine.dispose()

    asyncio.run(launch())
    return application


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_launched_process_looks_when_another_one_has_committed(
    processes: Processes, sqlite_database: TestDatabase, engine: Engine, kind: str, colour: str
) -> None:
    writer = processes.start_script(WRITER, str(sqlite_database.url))
    application = launched(sqlite_database, colour)
    try:
        hints = application._runtime.bound("test").hints
        looked = threading.Event()
        hints.look_everywhere = looked.set
        eventually(lambda: hints.is_listening)
        for rows in (1, 10_000, 1):
            looked.clear()
            writer.send_line(str(rows))
            writer.wait_for_line("written")
            assert looked.wait(PATIENCE)
    finally:
        began = time.monotonic()
        application.shut_down(0)
    assert time.monotonic() - began < 2
    assert not hints.is_listening
    assert not [thread for thread in threading.enumerate() if thread.name == "dbos-shop-watcher"]


def test_a_process_looks_rarely_because_of_its_own_commits(sqlite_database: TestDatabase, kind: str) -> None:
    looks = []
    with DBOS(sqlite_database.make_engine(), name="shop", config=QUIET).launch() as dbos:

        @dbos.workflow
        def work() -> None: ...

        hints = dbos._runtime.bound("test").hints
        eventually(lambda: hints.is_listening)
        hints.look_everywhere = lambda: looks.append(time.monotonic())
        began, count = time.monotonic(), 0
        while time.monotonic() - began < 0.5:
            work()
            count += 1
        took = time.monotonic() - began
        hints.look_everywhere = None
    assert count > 2 * len(looks)
    # A few more than one in 100 ms: a sample may fall between two of its own turns and not see the first one's commit.
    assert len(looks) <= took / 0.02
