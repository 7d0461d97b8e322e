"""The servers, databases, processes and proxies that the other tests stand on."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from tests.databases import TestDatabase, create_sqlite
from tests.engines import engine_for
from tests.postgres_server import PROGRAMS_VARIABLE, NoPostgresError, PostgresServer, StopMode, find_programs
from tests.processes import Processes, eventually
from tests.proxy import Loss, Proxy
from tests.scratch import ScratchFolder


def note(engine: Engine, word: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS note (word TEXT)"))
        connection.execute(text("INSERT INTO note VALUES (:word)"), {"word": word})


def notes(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        return list(connection.scalars(text("SELECT word FROM note ORDER BY word")))


class TestDatabases:
    @pytest.mark.parametrize("test", ["first", "second"])
    def test_nothing_that_one_test_writes_is_seen_by_another(self, database: TestDatabase, test: str) -> None:
        engine = database.make_engine()
        note(engine, test)
        assert notes(engine) == [test]

    async def test_an_asyncio_engine_sees_the_same_database(self, database: TestDatabase) -> None:
        note(database.make_engine(), "sync")
        async with database.make_async_engine().begin() as connection:
            assert list(await connection.scalars(text("SELECT word FROM note"))) == ["sync"]

    def test_an_empty_database_has_no_tables(self, empty_database: TestDatabase) -> None:
        assert inspect(empty_database.make_engine()).get_table_names() == []

    def test_a_database_has_the_schema(self, database: TestDatabase) -> None:
        assert "dbos_workflow_status" in inspect(database.make_engine()).get_table_names()

    def test_engines_are_disposed_of_at_the_end(self, postgresql_database: TestDatabase) -> None:
        pool = postgresql_database.make_engine().pool
        assert isinstance(pool, QueuePool)
        pool.connect().close()
        assert pool.checkedin() == 1
        postgresql_database.dispose()
        assert pool.checkedin() == 0

    def test_a_dropped_sqlite_database_leaves_no_file(self, tmp_path: Path) -> None:
        url, drop = create_sqlite(None, tmp_path)
        engine = engine_for(url)
        note(engine, "word")
        assert len(list(tmp_path.iterdir())) == 3  # The database, its log and the log's index.
        engine.dispose()
        drop()
        assert list(tmp_path.iterdir()) == []

    def test_killed_backends_are_counted(self, postgresql_database: TestDatabase) -> None:
        engine = postgresql_database.make_engine()
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            assert postgresql_database.terminate_connections() == 1
            with pytest.raises(DBAPIError):
                connection.execute(text("SELECT 1"))


class TestServer:
    @pytest.mark.parametrize("mode", list(StopMode))
    def test_a_restarted_server_keeps_what_was_committed(
        self, private_postgres: PostgresServer, mode: StopMode
    ) -> None:
        engine = engine_for(private_postgres.address.url("postgres"), pool_pre_ping=True)
        note(engine, "before")
        private_postgres.restart(mode)
        note(engine, "after")
        assert notes(engine) == ["after", "before"]
        engine.dispose()

    def test_a_killed_server_is_away_until_it_is_started(
        self, private_database: TestDatabase, private_postgres: PostgresServer
    ) -> None:
        engine = private_database.make_engine()
        note(engine, "word")
        private_postgres.stop(StopMode.KILL)
        assert not private_postgres.is_running
        with pytest.raises(DBAPIError):
            note(engine, "lost")
        private_postgres.start()
        assert notes(engine) == ["word"]

    def test_a_named_folder_is_the_only_one_looked_in(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv(PROGRAMS_VARIABLE, str(tmp_path))
        with pytest.raises(NoPostgresError, match=re.escape(str(tmp_path))):
            find_programs()


class TestScratch:
    def test_a_folder_of_a_killed_run_is_removed_by_the_next(self, processes: Processes) -> None:
        child = processes.start_script(
            """
            from tests.scratch import ScratchFolder
            folder = ScratchFolder()
            print(folder.path)
            input()
            """
        )
        path = Path(child.wait_for_line("dbos_orm_test_"))
        ScratchFolder().remove()
        assert path.exists()
        child.kill()
        ScratchFolder().remove()
        assert not path.exists()


class TestProcesses:
    def test_a_child_is_driven_by_lines(self, processes: Processes) -> None:
        child = processes.start_script("print('hello', input())", environment={"PYTHONHASHSEED": "0"})
        child.send_line("there")
        assert child.wait_for_line("hello") == "hello there"
        assert child.succeed() == ["hello there"]

    def test_a_child_that_ends_without_the_line_is_reported_with_its_error(self, processes: Processes) -> None:
        child = processes.start_script("raise SystemExit('out of order')")
        with pytest.raises(AssertionError, match="out of order"):
            child.wait_for_line("never")

    def test_a_stopped_child_stands_still_and_goes_on(self, processes: Processes, tmp_path: Path) -> None:
        counter = tmp_path / "counter"
        child = processes.start_script(
            """
            import itertools, pathlib, sys
            for number in itertools.count():
                pathlib.Path(sys.argv[1]).write_text(str(number))
                if number == 0:
                    print("counting")
            """,
            str(counter),
        )
        child.wait_for_line("counting")
        child.stop()
        assert child.is_running
        stopped_at = counter.stat().st_mtime_ns
        child.cont()
        eventually(lambda: counter.stat().st_mtime_ns > stopped_at)
        child.stop()
        child.kill()
        assert child.wait() == -signal.SIGKILL

    def test_a_module_is_run_from_the_repository(self, processes: Processes) -> None:
        assert processes.start_module("tests.engines").succeed() == []

    def test_patience_ends(self) -> None:
        with pytest.raises(AssertionError, match="the last answer was 0"):
            eventually(lambda: 0, timeout=0.01, what="a positive number")


class TestProxy:
    @pytest.mark.parametrize(("loss", "is_written"), [(Loss.ANSWER, True), (Loss.REQUEST, False)])
    def test_a_cut_commit_fails_whether_or_not_it_took_effect(
        self,
        postgresql_database: TestDatabase,
        make_proxy: Callable[[TestDatabase], Proxy],
        loss: Loss,
        is_written: bool,
    ) -> None:
        proxy = make_proxy(postgresql_database)
        engine = engine_for(proxy.url)
        note(engine, "kept")
        cut = proxy.cut(loss)
        with pytest.raises(DBAPIError):
            note(engine, "cut")
        assert cut.happened.is_set()
        note(engine, "next")
        assert notes(engine) == (["cut", "kept", "next"] if is_written else ["kept", "next"])
        engine.dispose()

    async def test_a_commit_of_asyncpg_can_be_cut(
        self, postgresql_database: TestDatabase, make_proxy: Callable[[TestDatabase], Proxy]
    ) -> None:
        direct = postgresql_database.make_engine()
        note(direct, "kept")
        proxy = make_proxy(postgresql_database)
        engine = TestDatabase("postgresql", proxy.url, postgresql_database._loop).make_async_engine()
        cut = proxy.cut()
        with pytest.raises(DBAPIError):
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO note VALUES ('cut')"))
        assert cut.happened.is_set()
        assert notes(direct) == ["cut", "kept"]
        await engine.dispose()

    def test_a_server_that_is_away_refuses_until_it_is_back(
        self, postgresql_database: TestDatabase, make_proxy: Callable[[TestDatabase], Proxy]
    ) -> None:
        proxy = make_proxy(postgresql_database)
        engine = engine_for(proxy.url)
        note(engine, "kept")
        proxy.refuse()
        with pytest.raises(DBAPIError):
            note(engine, "lost")
        proxy.accept()
        assert notes(engine) == ["kept"]
        assert proxy.cut_all() == 1
        engine.dispose()
