"""Which revision of the schema a database has: a plain select, because importing Alembic takes 120 ms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, column, inspect, select, table

from dbos_orm.errors import SchemaVersionError

__all__ = [
    "HEAD",
    "MIGRATE_COMMAND",
    "REVISIONS",
    "UPDATE_COMMAND",
    "VERSION_TABLE",
    "SchemaRevision",
    "default_schema",
    "require_current_schema",
    "schema_revision",
]

VERSION_TABLE: Final = "dbos_alembic_version"
REVISIONS: Final = ("0001",)
"""Every revision that this library knows, the first one first; a test compares it with the scripts."""
HEAD: Final = REVISIONS[-1]

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
