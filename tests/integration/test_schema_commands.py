"""``dbos-orm migrate``, ``current``, ``check`` and ``downgrade``, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from dbos_orm import schema
from dbos_orm._store.revision import HEAD
from dbos_orm._store.second_database import require_transaction_output
from dbos_orm.cli import main
from tests.databases import TestDatabase
from tests.processes import Processes

PORT_NOBODY_LISTENS_ON = 1


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    code = exited.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def address(database: TestDatabase) -> str:
    return database.url.render_as_string(hide_password=False)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DBOS_DATABASE_URL", raising=False)
    return tmp_path


class TestMigrateTransactionOutput:
    def test_a_second_database_gets_its_one_table(
        self, empty_database: TestDatabase, empty_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("migrate", "--transaction-output", address(empty_database)) == 0
        assert "now has the table dbos_transaction_output" in capsys.readouterr().out
        assert inspect(empty_database.make_engine()).get_table_names() == ["dbos_transaction_output"]
        assert run("migrate", "--transaction-output", address(empty_database)) == 0
        assert "has the table dbos_transaction_output already" in capsys.readouterr().out
        assert list(empty_folder.iterdir()) == [], "the database of the workflows is another one"

    def test_the_sql_makes_the_table(self, empty_database: TestDatabase, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("migrate", "--transaction-output", address(empty_database), "--sql") == 0
        engine = empty_database.make_engine()
        with engine.begin() as connection:
            connection.execute(text(capsys.readouterr().out))
            require_transaction_output(connection)


class TestMigrate:
    def test_an_empty_database_gets_the_tables(
        self, empty_database: TestDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("migrate", "--url", address(empty_database)) == 0
        assert f"is now at revision {HEAD}" in capsys.readouterr().out
        assert schema.current(empty_database.make_engine()) == HEAD
        assert run("migrate", "--url", address(empty_database)) == 0
        assert "already" in capsys.readouterr().out

    def test_the_environment_names_the_database(
        self, empty_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DBOS_DATABASE_URL", empty_database.async_url.render_as_string(hide_password=False))
        assert run("migrate") == 0
        assert schema.current(empty_database.make_engine()) == HEAD

    def test_without_any_url_it_is_a_file_in_this_folder(self, empty_folder: Path) -> None:
        assert run("migrate") == 0
        assert (empty_folder / "dbos.sqlite").exists()
        assert run("check") == 0

    def test_sql_is_printed_and_nothing_connected_to(
        self, empty_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("migrate", "--sql") == 0
        assert capsys.readouterr().out == schema.sql("sqlite")
        assert run("migrate", "--sql", "--url", "postgresql://nowhere.invalid/shop") == 0
        assert capsys.readouterr().out == schema.sql("postgresql")
        assert list(empty_folder.iterdir()) == []

    def test_a_revision_that_does_not_exist_is_wrong_usage(
        self, database: TestDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("migrate", "--url", address(database), "--revision", "9999") == 2
        assert "'9999'" in capsys.readouterr().err

    def test_what_the_database_refuses_is_said_in_its_words(
        self, empty_database: TestDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with empty_database.make_engine().begin() as connection:
            connection.execute(text("CREATE TABLE dbos_executor (in_the_way INTEGER)"))
        assert run("migrate", "--url", address(empty_database)) == 1
        assert "dbos_executor" in capsys.readouterr().err


class TestCheck:
    def test_a_current_database_is_good(self, database: TestDatabase, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("check", "--url", address(database)) == 0
        assert f"at revision {HEAD}" in capsys.readouterr().out
        assert run("current", "--url", address(database)) == 0
        assert capsys.readouterr().out == f"{HEAD}\n"

    def test_an_empty_database_is_not_and_the_command_is_named(
        self, empty_database: TestDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("check", "--url", address(empty_database)) == 1
        assert "dbos-orm migrate" in capsys.readouterr().out
        assert run("current", "--url", address(empty_database)) == 0
        assert capsys.readouterr().out == "no tables\n"

    def test_a_database_ahead_asks_for_a_newer_library(
        self, database: TestDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with database.make_engine().begin() as connection:
            connection.execute(text("UPDATE dbos_alembic_version SET version_num = '9999'"))
        assert run("check", "--url", address(database)) == 1
        assert "pip install --upgrade dbos_orm" in capsys.readouterr().out
        assert run("migrate", "--url", address(database)) == 1
        assert "'9999'" in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["check", "current"])
    def test_programs_read_json(self, database: TestDatabase, capsys: pytest.CaptureFixture[str], command: str) -> None:
        assert run(command, "--json", "--url", address(database)) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["found"], facts["expected"], facts["is_current"]) == (HEAD, HEAD, True)
        assert facts["command"] is None

    @pytest.mark.parametrize("command", ["check", "current"])
    def test_asking_makes_no_file(self, empty_folder: Path, command: str) -> None:
        run(command)
        assert list(empty_folder.iterdir()) == []


class TestDowngrade:
    def test_it_asks_first(
        self,
        sqlite_database: TestDatabase,
        processes: Processes,
    ) -> None:
        child = processes.start_module("dbos_orm", "downgrade", "base", "--url", address(sqlite_database))
        child.send_line("n")
        assert child.wait() == 1
        assert schema.current(sqlite_database.make_engine()) == HEAD
        child = processes.start_module("dbos_orm", "downgrade", "base", "--url", address(sqlite_database))
        child.send_line("y")
        child.succeed()
        assert schema.current(sqlite_database.make_engine()) is None

    def test_with_yes_it_does_not(self, database: TestDatabase, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("downgrade", "base", "--yes", "--url", address(database)) == 0
        assert "now has no tables" in capsys.readouterr().out
        assert inspect(database.make_engine()).get_table_names() == []

    def test_an_empty_database_has_nothing_to_do(
        self, empty_database: TestDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("downgrade", "base", "--url", address(empty_database)) == 0
        assert "nothing to do" in capsys.readouterr().out

    def test_an_unknown_revision_is_wrong_usage(self, database: TestDatabase) -> None:
        assert run("downgrade", "9999", "--yes", "--url", address(database)) == 2
        assert schema.current(database.make_engine()) == HEAD


class TestBadInput:
    @pytest.mark.parametrize(
        ("url", "code", "expected"),
        [
            ("nonsense", 2, "a database URL"),
            ("mysql://ada:secret@host/shop", 2, "PostgreSQL or SQLite"),
            ("postgresql+pg8000://ada:secret@host/shop", 2, "pip install pg8000"),
            ("sqlite://", 2, "in a file"),
            (f"postgresql://ada:secret@127.0.0.1:{PORT_NOBODY_LISTENS_ON}/shop", 3, "refused"),
            ("sqlite:////nowhere/shop.db", 3, "unable to open database file"),
        ],
    )
    def test_a_bad_url_has_its_own_error_and_exit_code(
        self, capsys: pytest.CaptureFixture[str], url: str, code: int, expected: str
    ) -> None:
        assert run("migrate", "--url", url) == code
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert expected in error
        assert "secret" not in error
        assert "Traceback" not in error

    def test_a_database_that_does_not_exist_is_unavailable(
        self, postgresql_database: TestDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        missing = postgresql_database.url.set(database="no_such_database")
        assert run("check", "--url", missing.render_as_string(hide_password=False)) == 3
        assert "no_such_database" in capsys.readouterr().err

    def test_a_file_that_is_no_database_is_refused(
        self, empty_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (empty_folder / "letter.txt").write_text("Dear Ada, " * 100)
        assert run("check", "--url", "sqlite:///letter.txt") == 1
        assert "not a database" in capsys.readouterr().err

    def test_an_unknown_command_is_wrong_usage(self) -> None:
        assert run("migrat") == 2


def test_a_default_engine_reads_what_the_command_migrated(empty_folder: Path) -> None:
    run("migrate", "--url", "sqlite:///shop.db")
    engine = create_engine(f"sqlite:///{empty_folder}/shop.db")
    assert schema.current(engine) == HEAD
    engine.dispose()
