"""A project with migrations of its own, in whose database our tables live."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Connection, ForeignKey, Integer, MetaData, Table, text

from dbos_orm import schema
from dbos_orm._store.revision import HEAD
from dbos_orm._store.second_database import create_transaction_output
from dbos_orm.alembic import include_name, include_object, target_metadata
from dbos_orm.models import WorkflowStatus
from tests.databases import TestDatabase

ROOT = Path(__file__).parents[2]


def metadata_of_the_user() -> MetaData:
    metadata = MetaData()
    Table(
        "orders",
        metadata,
        Column("order_id", Integer, primary_key=True),
        Column("fulfilment_id", ForeignKey(WorkflowStatus.workflow_id)),
    )
    return metadata


def proposals(connection: Connection, metadata: MetaData | Sequence[MetaData], **options: Any) -> list[tuple[str, str]]:
    context = MigrationContext.configure(connection, opts={"target_metadata": metadata, **options})
    # Changes of a table come as a list, changes of the database as a tuple of the kind and the table.
    found: list[Any] = compare_metadata(context, context.opts["target_metadata"])
    return [(operation[0], operation[1].name) for operation in found if isinstance(operation, tuple)]


class TestUsersProject:
    def test_our_tables_are_neither_dropped_nor_created(self, database: TestDatabase) -> None:
        metadata = metadata_of_the_user()
        with database.make_engine().connect() as connection:
            create_transaction_output(connection)
            found = proposals(connection, metadata, include_name=include_name, include_object=include_object)
            assert found == [("add_table", "orders")]
            metadata.create_all(connection, checkfirst=True)
            assert proposals(connection, metadata, include_name=include_name, include_object=include_object) == []

    def test_without_the_filters_they_would_be_dropped(self, database: TestDatabase) -> None:
        with database.make_engine().connect() as connection:
            dropped = [name for kind, name in proposals(connection, MetaData()) if kind == "remove_table"]
        assert {"dbos_workflow_status", "dbos_alembic_version"} <= set(dropped)

    def test_our_metadata_beside_the_users_is_not_created_again(self, database: TestDatabase) -> None:
        both = [metadata_of_the_user(), target_metadata]
        with database.make_engine().connect() as connection:
            found = proposals(connection, both, include_name=include_name, include_object=include_object)
        assert found == [("add_table", "orders")]

    def test_a_table_of_the_user_is_still_dropped(self, database: TestDatabase) -> None:
        with database.make_engine().connect() as connection:
            connection.execute(text("CREATE TABLE customer (customer_id INTEGER)"))
            found = proposals(connection, MetaData(), include_name=include_name, include_object=include_object)
        assert found == [("remove_table", "customer")]


class TestThisRepository:
    def alembic(self, database: TestDatabase, *arguments: str) -> subprocess.CompletedProcess[str]:
        url = database.url.render_as_string(hide_password=False)
        return subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=ROOT,
            env={**os.environ, "DBOS_DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_alembic_upgrade_head_works_and_alembic_check_is_clean(self, empty_database: TestDatabase) -> None:
        engine = empty_database.make_engine()
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE customer (customer_id INTEGER)"))
        upgraded = self.alembic(empty_database, "upgrade", "head")
        assert upgraded.returncode == 0, upgraded.stderr
        checked = self.alembic(empty_database, "check")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert schema.current(engine) == HEAD

    def test_alembic_check_finds_what_differs(self, database: TestDatabase) -> None:
        with database.make_engine().begin() as connection:
            connection.execute(text("DROP INDEX ix_dbos_workflow_status_claim"))
        checked = self.alembic(database, "check")
        assert checked.returncode == 255
        assert "ix_dbos_workflow_status_claim" in checked.stderr + checked.stdout

    def test_alembic_downgrade_base_leaves_nothing(self, database: TestDatabase) -> None:
        downgraded = self.alembic(database, "downgrade", "base")
        assert downgraded.returncode == 0, downgraded.stderr
        assert schema.current(database.make_engine()) is None

    def test_alembic_prints_sql(self, database: TestDatabase) -> None:
        printed = self.alembic(database, "upgrade", "head", "--sql")
        assert printed.returncode == 0, printed.stderr
        assert printed.stdout == schema.sql(database.url)


@pytest.mark.parametrize("type_", ["column", "index", "schema", "unique_constraint", "foreign_key_constraint"])
def test_only_tables_are_left_out(type_: str) -> None:
    assert include_name("dbos_queue", type_, {})
    assert include_object(Table("t", MetaData()), "dbos_queue", type_, False, None)
