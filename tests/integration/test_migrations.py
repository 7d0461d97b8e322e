"""The migrations make exactly the models' tables, undo themselves, and wait for one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from dbos_orm import schema
from dbos_orm._store.revision import (
    HEAD,
    REVISIONS,
    UPDATE_COMMAND,
    VERSION_TABLE,
    lock_schema,
    require_current_schema,
    schema_revision,
)
from dbos_orm._store.second_database import create_transaction_output
from dbos_orm.errors import ConfigurationError, SchemaVersionError
from dbos_orm.models import TransactionOutput, WorkflowStatus, metadata
from tests.catalog import catalog
from tests.conftest import MakeDatabase
from tests.databases import POSTGRESQL, TestDatabase
from tests.processes import Processes, eventually

SETTINGS_OF_ENGINES: list[dict[str, Any]] = [
    {"isolation_level": "AUTOCOMMIT"},
    {"isolation_level": "SERIALIZABLE"},
]


def catalog_of(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {name: text for name, text in catalog(connection).items() if VERSION_TABLE not in name}


def tables_of(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def pretend_revision(connection: Connection, revision: str) -> None:
    connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'"))


class TestUpgrade:
    def test_the_revisions_from_zero_make_the_tables_of_the_models(
        self, empty_database: TestDatabase, make_database: MakeDatabase
    ) -> None:
        migrated = empty_database.make_engine()
        assert schema.upgrade(migrated) is None
        created = make_database(empty_database.backend, schema=False).make_engine()
        metadata.create_all(created)
        assert catalog_of(migrated) == catalog_of(created)

    def test_an_upgrade_of_the_newest_schema_changes_nothing(self, database: TestDatabase) -> None:
        engine = database.make_engine()
        before = catalog_of(engine)
        assert schema.upgrade(engine) == HEAD
        assert catalog_of(engine) == before
        assert schema.current(engine) == HEAD

    def test_a_failed_upgrade_leaves_nothing(self, empty_database: TestDatabase) -> None:
        engine = empty_database.make_engine()
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE dbos_executor (in_the_way INTEGER)"))
        with pytest.raises(DBAPIError, match="dbos_executor"):
            schema.upgrade(engine)
        assert tables_of(engine) == {"dbos_executor"}

    def test_a_failed_upgrade_leaves_nothing_although_the_driver_would_begin_late(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE dbos_executor (in_the_way INTEGER)"))
        with pytest.raises(DBAPIError, match="dbos_executor"):
            schema.upgrade(engine)
        assert tables_of(engine) == {"dbos_executor"}
        engine.dispose()

    @pytest.mark.parametrize("settings", SETTINGS_OF_ENGINES, ids=str)
    def test_an_engine_of_any_isolation_level_will_do(
        self, empty_database: TestDatabase, settings: dict[str, Any]
    ) -> None:
        engine = empty_database.make_engine(**settings)
        schema.upgrade(engine)
        assert schema.current(engine) == HEAD

    def test_the_transaction_is_the_callers_if_one_is_open(self, empty_database: TestDatabase) -> None:
        engine = empty_database.make_engine()
        with engine.connect() as connection, connection.begin() as transaction:
            schema.upgrade_connection(connection)
            assert schema_revision(connection).is_current
            transaction.rollback()
        assert tables_of(engine) == set()

    async def test_an_asyncio_connection_is_migrated_by_run_sync(self, empty_database: TestDatabase) -> None:
        async with empty_database.make_async_engine().connect() as connection:
            await connection.run_sync(schema.upgrade_connection)
        assert schema.current(empty_database.make_engine()) == HEAD

    def test_the_schema_of_a_schema_translate_map_is_used(self, make_database: MakeDatabase) -> None:
        plain = make_database(POSTGRESQL, schema=False).make_engine()
        with plain.begin() as connection:
            connection.execute(text("CREATE SCHEMA workflows"))
        engine = plain.execution_options(schema_translate_map={None: "workflows"})
        schema.upgrade(engine)
        schema.upgrade(engine)
        assert schema.current(engine) == HEAD
        assert schema.current(plain) is None
        with engine.connect() as connection:
            assert connection.scalars(select(WorkflowStatus.workflow_id)).all() == []
        schema.downgrade(engine, "base")
        assert inspect(plain).get_table_names("workflows") == []


class TestDowngrade:
    def test_every_downgrade_undoes_its_upgrade(self, empty_database: TestDatabase) -> None:
        engine = empty_database.make_engine()
        history = [catalog_of(engine)]
        for revision in REVISIONS:
            schema.upgrade(engine, revision)
            history.append(catalog_of(engine))
        for revision in [*reversed(REVISIONS[:-1]), "base"]:
            history.pop()
            schema.downgrade(engine, revision)
            assert catalog_of(engine) == history[-1]

    def test_at_base_nothing_of_ours_is_left_and_everything_of_the_users(self, database: TestDatabase) -> None:
        engine = database.make_engine()
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE customer (customer_id INTEGER)"))
        schema.downgrade(engine, "base")
        assert tables_of(engine) == {"customer"}

    def test_a_downgrade_of_an_empty_database_changes_nothing(self, empty_database: TestDatabase) -> None:
        engine = empty_database.make_engine()
        schema.downgrade(engine, "base")
        assert tables_of(engine) == set()

    def test_after_base_an_upgrade_starts_anew(self, database: TestDatabase) -> None:
        engine = database.make_engine()
        before = catalog_of(engine)
        schema.downgrade(engine, "base")
        schema.upgrade(engine)
        assert catalog_of(engine) == before


class TestRevision:
    def test_an_unknown_revision_is_refused_with_the_known_ones(self, database: TestDatabase) -> None:
        with pytest.raises(ConfigurationError, match="'0001'") as refused:
            schema.upgrade(database.make_engine(), "9999")
        assert refused.value.value == "9999"

    @pytest.mark.parametrize("change", [schema.upgrade_connection, schema.downgrade_connection])
    def test_what_a_newer_library_has_migrated_is_not_touched(self, database: TestDatabase, change: Any) -> None:
        with database.make_engine().connect() as connection:
            pretend_revision(connection, "9999")
            with pytest.raises(SchemaVersionError) as refused:
                change(connection, "base")
        assert refused.value.found == "9999"
        assert refused.value.command == UPDATE_COMMAND

    def test_the_current_schema_is_accepted(self, database: TestDatabase) -> None:
        with database.make_engine().connect() as connection:
            require_current_schema(connection)

    def test_an_empty_database_is_refused_with_the_command_to_run(self, empty_database: TestDatabase) -> None:
        with (
            empty_database.make_engine().connect() as connection,
            pytest.raises(SchemaVersionError, match="dbos-orm migrate") as refused,
        ):
            require_current_schema(connection)
        assert (refused.value.found, refused.value.expected) == (None, HEAD)

    def test_reading_the_revision_writes_nothing(self, empty_database: TestDatabase) -> None:
        engine = empty_database.make_engine()
        assert schema.current(engine) is None
        assert tables_of(engine) == set()


class TestSql:
    def test_the_printed_sql_makes_the_same_tables(self, database: TestDatabase, make_database: MakeDatabase) -> None:
        by_hand = make_database(database.backend, schema=False).make_engine()
        script = schema.sql(database.url)
        raw = by_hand.raw_connection()
        cursor: Any = raw.cursor()
        run = cursor.execute if database.backend == POSTGRESQL else cursor.executescript
        run(script)
        cursor.close()
        raw.close()
        assert catalog_of(by_hand) == catalog_of(database.make_engine())
        assert schema.current(by_hand) == HEAD

    @pytest.mark.parametrize("database_name", ["postgresql", "sqlite"])
    def test_sql_is_printed_by_the_name_of_the_database(self, database_name: str) -> None:
        script = schema.sql(database_name)
        assert script.startswith("BEGIN;")
        assert script.rstrip().endswith("COMMIT;")

    def test_sql_of_an_unknown_revision_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="'9999'"):
            schema.sql("sqlite", "9999")


class TestAtOnce:
    def test_processes_that_migrate_at_once_all_succeed(
        self, empty_database: TestDatabase, processes: Processes
    ) -> None:
        url = empty_database.url.render_as_string(hide_password=False)
        children = [processes.start_module("dbos_orm", "migrate", "--url", url) for _ in range(4)]
        lines = [line for child in children for line in child.succeed()]
        assert sum("is now at revision" in line for line in lines) == 1
        assert sum("already" in line for line in lines) == 3
        assert schema.current(empty_database.make_engine()) == HEAD

    def test_who_waits_for_a_migration_finds_it_done(self, make_database: MakeDatabase, processes: Processes) -> None:
        database = make_database(POSTGRESQL, schema=False)
        engine = database.make_engine()
        watcher = database.make_engine(isolation_level="AUTOCOMMIT")
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        with engine.begin() as connection, watcher.connect() as watching:
            schema.upgrade_connection(connection)
            url = database.url.render_as_string(hide_password=False)
            # A stricter level than the default, under which it would see the database from before.
            child = processes.start_script(
                """
                import sys
                from sqlalchemy import create_engine
                from dbos_orm import schema

                schema.upgrade(create_engine(sys.argv[1], isolation_level="REPEATABLE READ"))
                """,
                url,
            )
            eventually(lambda: watching.scalar(waiting), what="the child waits for the lock")
        child.succeed()
        assert schema.current(engine) == HEAD


class TestSecondDatabase:
    def test_its_table_is_made_once(self, empty_database: TestDatabase) -> None:
        engine = empty_database.make_engine()
        for _ in range(2):
            with engine.begin() as connection:
                create_transaction_output(connection)
        assert tables_of(engine) == {TransactionOutput.__table__.name}

    def test_the_main_database_does_not_have_it(self, database: TestDatabase) -> None:
        assert TransactionOutput.__tablename__ not in tables_of(database.make_engine())

    def test_the_lock_may_be_taken_twice_in_a_transaction(self, empty_database: TestDatabase) -> None:
        with empty_database.make_engine().begin() as connection:
            lock_schema(connection)
            lock_schema(connection)
