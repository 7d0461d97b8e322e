"""Which revision of the schema a database has, and the lock under which it changes.

A plain select and no Alembic, whose import takes 120 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Select, column, func, inspect, literal, select, table

from dbos_orm.errors import SchemaVersionError

__all__ = [
    "HEAD",
    "MIGRATE_COMMAND",
    "REVISIONS",
    "UPDATE_COMMAND",
    "VERSION_TABLE",
    "SchemaRevision",
    "advisory_lock",
    "default_schema",
    "lock_schema",
    "require_current_schema",
    "schema_revision",
]

VERSION_TABLE: Final = "dbos_alembic_version"
REVISIONS: Final = ("0001",)
"""Every revision that this library knows, the first one first; a test compares it with the scripts."""
HEAD: Final = REVISIONS[-1]

_LOCK_KEY: Final = int.from_bytes(b"dbos_orm")

MIGRATE_COMMAND: Final = "dbos-orm migrate"
UPDATE_COMMAND: Final = "pip install --upgrade dbos_orm"


@dataclass(frozen=True, slots=True)
class SchemaRevision:
    """What a database has (None: no tables of ours) and what this library works with."""

    found: str | None
    expected: str = HEAD

    @property
    def is_current(self) -> bool:
        """Whether this library can work with the database."""
        return self.found == self.expected

    @property
    def is_ahead(self) -> bool:
        """Whether a newer library has migrated the database: this one must be updated, not the schema."""
        return self.found is not None and self.found not in REVISIONS

    @property
    def command(self) -> str:
        """What to run to make it current."""
        return UPDATE_COMMAND if self.is_ahead else MIGRATE_COMMAND


def schema_revision(connection: Connection) -> SchemaRevision:
    """Read which revision the database has; an empty one is found to be None, not an error."""
    schema = default_schema(connection)
    if not inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return SchemaRevision(None)
    versions = table(VERSION_TABLE, column("version_num"), schema=schema)
    return SchemaRevision(connection.execute(select(versions.c.version_num)).scalar())


def require_current_schema(connection: Connection) -> None:
    """Return when the database has exactly the schema that this library works with.

    Raises:
        SchemaVersionError: it has an older one, a newer one or none; it names the command to run.
    """
    revision = schema_revision(connection)
    if not revision.is_current:
        raise SchemaVersionError(revision.found, revision.expected, revision.command)


def default_schema(connection: Connection) -> str | None:
    """The schema that ``schema_translate_map`` puts in place of the default one, if it does."""
    translated = connection.get_execution_options().get("schema_translate_map") or {}
    schema: str | None = translated.get(None)
    return schema


def lock_schema(connection: Connection) -> None:
    """Wait until nobody else changes this schema; it stays ours until the end of the open transaction."""
    if not connection.in_transaction():
        connection.begin()
    if connection.dialect.name == "postgresql":
        connection.execute(advisory_lock())
    # The driver's default is to begin at the first INSERT, after the first tables were made.
    elif not getattr(connection.connection.driver_connection, "in_transaction", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def advisory_lock() -> Select[Any]:
    """The statement behind ``lock_schema`` on PostgreSQL.

    Not a lock of the session, which would leak to other clients through a pooler.
    """
    return select(func.pg_advisory_xact_lock(literal(_LOCK_KEY, BigInteger)))
