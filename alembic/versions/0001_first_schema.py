"""Create every table of the first schema.

Written out and not taken from the models: a migration must go on doing what it did on the day it
was released. ``op.f`` says that a name is final, so that no naming convention changes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INSTANT = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
MICROSECONDS = sa.BigInteger()
# JSON keeps the text of a payload as it is; a SQLite column called JSON would turn 1e22 into a float.
PAYLOAD = sa.JSON().with_variant(sa.Text(), "sqlite")
ATTRIBUTES = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
SEQUENCE = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

LIVE = "status IN ('ENQUEUED', 'DELAYED', 'PENDING')"


class SetStorage(ExecutableDDLElement):
    """A statement of its own, since create_table takes the parameters only from SQLAlchemy 2.1 on."""

    def __init__(self, table: sa.Table, parameters: Mapping[str, float]) -> None:
        self.table, self.parameters = table, parameters


@compiles(SetStorage, "postgresql")
def compile_set_storage(element: SetStorage, compiler: DDLCompiler, **_: Any) -> str:
    parameters = ", ".join(f"{name} = {value}" for name, value in element.parameters.items())
    return f"ALTER TABLE {compiler.preparer.format_table(element.table)} SET ({parameters})"


def upgrade() -> None:
    _create_workflow_status()
    _create_steps()
    _create_messages_events_and_streams()
    _create_queues_and_schedules()
    _create_executor()


def downgrade() -> None:
    for table in (
        "dbos_executor",
        "dbos_schedule",
        "dbos_rate_start",
        "dbos_queue",
        "dbos_stream_entry",
        "dbos_workflow_event_history",
        "dbos_workflow_event",
        "dbos_notification",
        "dbos_step_attempt",
        "dbos_step_output",
        "dbos_workflow_status",
    ):
        op.drop_table(table)


def _on_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


def _now() -> Any:
    if _on_postgresql():
        return sa.text("clock_timestamp()")
    return sa.text("(strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'))")


def _random_text() -> Any:
    if _on_postgresql():
        return sa.text("CAST(gen_random_uuid() AS TEXT)")
    return sa.text("(lower(hex(randomblob(16))))")


def _uuid_version_7() -> Any:
    if _on_postgresql():
        return sa.text(
            "regexp_replace("
            r"lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)), 12, '0'), "
            r"'(.{8})(.{4})', '\1-\2-7') || substr(CAST(gen_random_uuid() AS TEXT), 16)"
        )
    milliseconds = "printf('%012x', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))"
    return sa.text(
        f"(substr({milliseconds}, 1, 8) || '-' || substr({milliseconds}, 9) || "
        "'-7' || substr(lower(hex(randomblob(2))), 2) || "
        "'-8' || substr(lower(hex(randomblob(2))), 2) || '-' || lower(hex(randomblob(6))))"
    )


def _set_storage(table: sa.Table, **parameters: float) -> None:
    if _on_postgresql():
        op.execute(SetStorage(table, parameters))


def _create_index(name: str, table: str, *columns: str, where: str | None = None, unique: bool = False) -> None:
    predicate = None if where is None else sa.text(where)
    op.create_index(
        op.f(name),
        table,
        list(columns),
        unique=unique,
        postgresql_where=predicate,
        sqlite_where=predicate,
    )


def _create_workflow_status() -> None:
    table = op.create_table(
        "dbos_workflow_status",
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("class_name", sa.Text()),
        sa.Column("config_name", sa.Text()),
        sa.Column("version", sa.Text()),
        sa.Column("version_pinned", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("generation", sa.Text(), server_default=_random_text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="ENQUEUED", nullable=False),
        sa.Column("input", PAYLOAD),
        sa.Column("output", PAYLOAD),
        sa.Column("error", PAYLOAD),
        sa.Column("serializer", sa.Text(), server_default="json", nullable=False),
        sa.Column("executor_id", sa.Text()),
        sa.Column("owner_token", sa.Text()),
        sa.Column("recovery_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("queue", sa.Text()),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("partition_key", sa.Text()),
        sa.Column("deduplication_id", sa.Text()),
        sa.Column("delay_until", INSTANT),
        sa.Column("debounce_until", INSTANT),
        sa.Column("timeout", MICROSECONDS),
        sa.Column("deadline", INSTANT),
        sa.Column("wake_at", INSTANT),
        sa.Column("waiting_for", sa.Text()),
        sa.Column("parent_id", sa.Text()),
        sa.Column("parent_step", sa.Text()),
        sa.Column("forked_from", sa.Text()),
        sa.Column("attributes", ATTRIBUTES),
        sa.Column("authenticated_user", sa.Text()),
        sa.Column("assumed_role", sa.Text()),
        sa.Column("roles", ATTRIBUTES),
        sa.Column("schedule", sa.Text()),
        sa.Column("sequence", SEQUENCE, server_default=_uuid_version_7(), nullable=False),
        sa.Column("created_at", INSTANT, server_default=_now(), nullable=False),
        sa.Column("enqueued_at", INSTANT),
        sa.Column("started_at", INSTANT),
        sa.Column("completed_at", INSTANT),
        sa.Column("updated_at", INSTANT, server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", name=op.f("pk_dbos_workflow_status")),
        sa.CheckConstraint(
            "status IN ('ENQUEUED', 'DELAYED', 'PENDING', 'SUCCESS', 'ERROR', 'CANCELLED', "
            "'MAX_RECOVERY_ATTEMPTS_EXCEEDED')",
            name=op.f("ck_dbos_workflow_status_status"),
        ),
    )
    _set_storage(table, fillfactor=80, autovacuum_vacuum_scale_factor=0.02, autovacuum_analyze_scale_factor=0.05)
    for purpose, columns, where in (
        ("claim", ("application", "queue", "name", "version", "priority", "sequence"), "status = 'ENQUEUED'"),
        (
            "partition",
            ("application", "queue", "partition_key", "priority", "sequence"),
            "status = 'ENQUEUED' AND partition_key IS NOT NULL",
        ),
        ("running", ("application", "queue", "partition_key"), "status = 'PENDING' AND queue IS NOT NULL"),
        ("owned", ("executor_id",), "status = 'PENDING'"),
        ("letting_go", ("executor_id",), "status = 'CANCELLED' AND owner_token IS NOT NULL"),
        ("delayed", ("delay_until",), "status = 'DELAYED'"),
        ("wake", ("wake_at",), "status = 'PENDING' AND wake_at IS NOT NULL"),
        ("waiting_for", ("waiting_for",), "status = 'PENDING' AND waiting_for IS NOT NULL"),
        ("deadline", ("deadline",), f"{LIVE} AND deadline IS NOT NULL"),
        ("parent", ("parent_id",), "parent_id IS NOT NULL"),
        ("forked_from", ("forked_from",), "forked_from IS NOT NULL"),
        ("sequence", ("sequence",), None),
        ("completed", ("completed_at",), "completed_at IS NOT NULL"),
    ):
        _create_index(f"ix_dbos_workflow_status_{purpose}", "dbos_workflow_status", *columns, where=where)
    _create_index(
        "ix_dbos_workflow_status_deduplication",
        "dbos_workflow_status",
        *("application", "queue", "deduplication_id"),
        where=f"{LIVE} AND deduplication_id IS NOT NULL",
        unique=True,
    )


def _create_steps() -> None:
    table = op.create_table(
        "dbos_step_output",
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), server_default="", nullable=False),
        sa.Column("step_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="step", nullable=False),
        sa.Column("output", PAYLOAD),
        sa.Column("error", PAYLOAD),
        sa.Column("serializer", sa.Text(), server_default="json", nullable=False),
        sa.Column("child_id", sa.Text()),
        sa.Column("owner_token", sa.Text(), nullable=False),
        sa.Column("write_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text()),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("wake_at", INSTANT),
        sa.Column("started_at", INSTANT),
        sa.Column("completed_at", INSTANT),
        sa.PrimaryKeyConstraint("workflow_id", "scope", "step_id", name=op.f("pk_dbos_step_output")),
    )
    _set_storage(
        table,
        autovacuum_vacuum_scale_factor=0.05,
        autovacuum_vacuum_insert_scale_factor=0.05,
        autovacuum_analyze_scale_factor=0.05,
    )
    _create_index("ix_dbos_step_output_child", "dbos_step_output", "child_id", where="child_id IS NOT NULL")
    op.create_table(
        "dbos_step_attempt",
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), server_default="", nullable=False),
        sa.Column("step_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("error", PAYLOAD),
        sa.Column("serializer", sa.Text(), server_default="json", nullable=False),
        sa.Column("owner_token", sa.Text(), nullable=False),
        sa.Column("write_id", sa.BigInteger(), nullable=False),
        sa.Column("started_at", INSTANT),
        sa.Column("failed_at", INSTANT),
        sa.Column("next_at", INSTANT),
        sa.PrimaryKeyConstraint("workflow_id", "scope", "step_id", "attempt", name=op.f("pk_dbos_step_attempt")),
    )


def _create_messages_events_and_streams() -> None:
    table = op.create_table(
        "dbos_notification",
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), server_default="", nullable=False),
        sa.Column("message", PAYLOAD, nullable=False),
        sa.Column("serializer", sa.Text(), server_default="json", nullable=False),
        sa.Column("sender_id", sa.Text()),
        sa.Column("sender_step", sa.Text()),
        sa.Column("sequence", SEQUENCE, server_default=_uuid_version_7(), nullable=False),
        sa.Column("consumed_at", INSTANT),
        sa.Column("consumed_scope", sa.Text()),
        sa.Column("consumed_step_id", sa.Integer()),
        sa.Column("created_at", INSTANT, server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", "message_id", name=op.f("pk_dbos_notification")),
    )
    _set_storage(table, fillfactor=90, autovacuum_vacuum_scale_factor=0.05)
    _create_index(
        "ix_dbos_notification_unconsumed",
        "dbos_notification",
        *("workflow_id", "topic", "sequence"),
        where="consumed_at IS NULL",
    )
    table = op.create_table(
        "dbos_workflow_event",
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", PAYLOAD, nullable=False),
        sa.Column("serializer", sa.Text(), server_default="json", nullable=False),
        sa.Column("scope", sa.Text(), server_default="", nullable=False),
        sa.Column("step_id", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", INSTANT, server_default=_now(), nullable=False),
        sa.Column("updated_at", INSTANT, server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", "key", name=op.f("pk_dbos_workflow_event")),
    )
    _set_storage(table, fillfactor=80, autovacuum_vacuum_scale_factor=0.05)
    op.create_table(
        "dbos_workflow_event_history",
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), server_default="", nullable=False),
        sa.Column("step_id", sa.Integer(), autoincrement=False, server_default=sa.text("0"), nullable=False),
        sa.Column("value", PAYLOAD, nullable=False),
        sa.Column("serializer", sa.Text(), server_default="json", nullable=False),
        sa.Column("sequence", SEQUENCE, server_default=_uuid_version_7(), nullable=False),
        sa.Column("created_at", INSTANT, server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", "key", "scope", "step_id", name=op.f("pk_dbos_workflow_event_history")),
    )
    op.create_table(
        "dbos_stream_entry",
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), server_default="", nullable=False),
        sa.Column("step_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("entry", sa.Integer(), autoincrement=False, server_default=sa.text("0"), nullable=False),
        sa.Column("value", PAYLOAD),
        sa.Column("serializer", sa.Text(), server_default="json", nullable=False),
        sa.Column("closed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("sequence", SEQUENCE, server_default=_uuid_version_7(), nullable=False),
        sa.Column("created_at", INSTANT, server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint(
            *("workflow_id", "key", "scope", "step_id", "entry"), name=op.f("pk_dbos_stream_entry")
        ),
    )
    _create_index("ix_dbos_stream_entry_order", "dbos_stream_entry", "workflow_id", "key", "sequence")


def _create_queues_and_schedules() -> None:
    op.create_table(
        "dbos_queue",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Integer()),
        sa.Column("worker_concurrency", sa.Integer()),
        sa.Column("rate_limit", sa.Integer()),
        sa.Column("rate_period", MICROSECONDS),
        sa.Column("partitioned", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("partition_cursor", sa.Text()),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", INSTANT, server_default=_now(), nullable=False),
        sa.Column("updated_at", INSTANT, server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("application", "name", name=op.f("pk_dbos_queue")),
    )
    table = op.create_table(
        "dbos_rate_start",
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("owner_token", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("partition_key", sa.Text()),
        sa.Column("started_at", INSTANT, server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", "owner_token", name=op.f("pk_dbos_rate_start")),
    )
    _set_storage(table, autovacuum_vacuum_scale_factor=0.05)
    rate_columns = ("application", "queue", "partition_key", "started_at")
    _create_index("ix_dbos_rate_start_window", "dbos_rate_start", *rate_columns)
    op.create_table(
        "dbos_schedule",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("workflow_name", sa.Text(), nullable=False),
        sa.Column("class_name", sa.Text()),
        sa.Column("config_name", sa.Text()),
        sa.Column("expression", sa.Text()),
        sa.Column("trigger", sa.Text()),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("queue", sa.Text()),
        sa.Column("context", PAYLOAD),
        sa.Column("serializer", sa.Text(), server_default="json", nullable=False),
        sa.Column("catch_up", sa.Text(), server_default="last", nullable=False),
        sa.Column("declared", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("next_fire_at", INSTANT),
        sa.Column("last_fire_at", INSTANT),
        sa.Column("created_at", INSTANT, server_default=_now(), nullable=False),
        sa.Column("updated_at", INSTANT, server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("application", "name", name=op.f("pk_dbos_schedule")),
        sa.CheckConstraint("catch_up IN ('none', 'last', 'all')", name=op.f("ck_dbos_schedule_catch_up")),
    )


def _create_executor() -> None:
    table = op.create_table(
        "dbos_executor",
        sa.Column("executor_id", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("heartbeat", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease", MICROSECONDS, nullable=False),
        sa.Column("hostname", sa.Text()),
        sa.Column("boot_id", sa.Text()),
        sa.Column("pid_namespace", sa.Text()),
        sa.Column("pid", sa.Integer()),
        sa.Column("process_started", sa.Text()),
        sa.Column("library_version", sa.Text()),
        sa.Column("started_at", INSTANT, server_default=_now(), nullable=False),
        sa.Column("renewed_at", INSTANT, server_default=_now(), nullable=False),
        sa.Column("expired_at", INSTANT),
        sa.PrimaryKeyConstraint("executor_id", name=op.f("pk_dbos_executor")),
    )
    _set_storage(table, fillfactor=50, autovacuum_vacuum_scale_factor=0)
