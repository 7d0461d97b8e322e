"""The shape of the models: what holds for every table, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import CheckConstraint, Column, Constraint, Index, Table, make_url
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.exc import CompileError
from sqlalchemy.orm import configure_mappers
from sqlalchemy.schema import CreateTable

from dbos_orm import models
from dbos_orm._states import LIVE_STATES, TERMINAL_STATES, WorkflowState
from dbos_orm.models import (
    Base,
    StepOutput,
    TransactionOutput,
    WorkflowStatus,
    metadata,
    transaction_metadata,
)

TABLES = {
    "dbos_executor",
    "dbos_notification",
    "dbos_queue",
    "dbos_rate_start",
    "dbos_schedule",
    "dbos_step_attempt",
    "dbos_step_output",
    "dbos_stream_entry",
    "dbos_workflow_event",
    "dbos_workflow_event_history",
    "dbos_workflow_status",
}
STATUS_COLUMNS = [
    "workflow_id", "application", "name", "class_name", "config_name", "version", "version_pinned",
    "generation", "status", "input", "output", "error", "serializer", "executor_id", "owner_token",
    "recovery_attempts", "queue", "priority", "partition_key", "deduplication_id", "delay_until",
    "debounce_until", "timeout", "deadline", "wake_at", "waiting_for", "parent_id", "parent_step",
    "forked_from", "attributes", "authenticated_user", "assumed_role", "roles", "schedule", "sequence",
    "created_at", "enqueued_at", "started_at", "completed_at", "updated_at"
]  # fmt: skip
LONGEST_NAME_OF_POSTGRESQL = 63
GIVEN_BY_THE_WRITER = {"name", "application", "lease", "owner_token", "write_id", "message", "value", "queue"}

ALL_TABLES = [*metadata.tables.values(), *transaction_metadata.tables.values()]


def describe(table: Table) -> str:
    return table.name


def test_the_main_database_has_these_tables() -> None:
    assert set(metadata.tables) == TABLES


def test_a_second_database_has_one_table() -> None:
    assert set(transaction_metadata.tables) == {TransactionOutput.__tablename__}


def test_the_status_row_has_the_columns_of_the_design() -> None:
    assert list(WorkflowStatus.__table__.columns.keys()) == STATUS_COLUMNS


def test_every_model_is_exported() -> None:
    for mapper in Base.registry.mappers:
        assert getattr(models, mapper.class_.__name__) is mapper.class_


def test_all_relationships_are_complete() -> None:
    configure_mappers()


@pytest.mark.parametrize("table", ALL_TABLES, ids=describe)
def test_every_constraint_and_index_has_a_name_that_fits(table: Table) -> None:
    statement = str(CreateTable(table).compile(dialect=make_url("postgresql+psycopg2://").get_dialect()()))
    named: list[Index | Constraint] = [*table.indexes, *table.constraints]
    for item in named:
        assert item.name is not None
        assert len(str(item.name)) <= LONGEST_NAME_OF_POSTGRESQL
        if isinstance(item, CheckConstraint):
            assert f"CONSTRAINT {item.name} CHECK" in statement
    assert f"CONSTRAINT pk_{table.name} PRIMARY KEY" in statement


@pytest.mark.parametrize("table", ALL_TABLES, ids=describe)
def test_a_column_that_must_have_a_value_has_a_default_or_a_writer_who_knows_it(table: Table) -> None:
    def is_left_to_nobody(column: Column[object]) -> bool:
        given = column.nullable or column.primary_key or column.server_default is not None
        return not given and column.name not in {*GIVEN_BY_THE_WRITER, "workflow_name"}

    assert [column.name for column in table.columns if is_left_to_nobody(column)] == []


@pytest.mark.parametrize("table", ALL_TABLES, ids=describe)
def test_no_table_pays_for_a_foreign_key(table: Table) -> None:
    assert table.foreign_keys == set()


@pytest.mark.parametrize("table", ALL_TABLES, ids=describe)
def test_nothing_is_indexed_by_what_every_write_changes(table: Table) -> None:
    indexed = {column.name for index in table.indexes for column in index.columns}
    assert indexed.isdisjoint({"updated_at", "heartbeat", "renewed_at", "recovery_attempts"})


def test_a_database_without_a_spelling_is_named() -> None:
    with pytest.raises(CompileError, match="mysql"):
        CreateTable(metadata.tables["dbos_executor"]).compile(dialect=MySQLDialect())


def test_a_state_is_either_live_or_terminal() -> None:
    assert set(WorkflowState) == LIVE_STATES | TERMINAL_STATES
    assert LIVE_STATES.isdisjoint(TERMINAL_STATES)
    assert [state for state in WorkflowState if state.is_live == state.is_terminal] == []


def test_a_state_is_its_name_in_every_driver() -> None:
    assert [state.name for state in WorkflowState] == [state.value for state in WorkflowState]


def test_an_object_answers_as_its_row_would() -> None:
    started = datetime(2026, 11, 22, tzinfo=UTC)
    running = WorkflowStatus(status="PENDING", started_at=started)
    ended = WorkflowStatus(status="SUCCESS", started_at=started, completed_at=started + timedelta(seconds=2))
    assert (running.is_live, running.is_terminal, running.duration) == (True, False, None)
    assert (ended.is_live, ended.is_terminal, ended.duration) == (False, True, timedelta(seconds=2))
    assert ended.state is WorkflowState.SUCCESS


@pytest.mark.parametrize(("scope", "path"), [("", "2"), ("3", "3.2"), ("3.1", "3.1.2")])
def test_a_step_has_a_path(scope: str, path: str) -> None:
    assert StepOutput(scope=scope, step_id=2).path == path
