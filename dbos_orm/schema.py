"""Bringing a database to a revision of the schema; the only module that runs Alembic's commands.

The scripts are packaged with the library and have a version table of their own, so that they meet
neither your migrations nor your Alembic configuration. Each function runs in one transaction: it takes
effect as a whole or not at all, on SQLite too. Processes that migrate one database wait for one another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_mock_engine
from sqlalchemy.schema import CreateTable

from dbos_orm._dialects._urls import normalized_url
from dbos_orm._store import second_database
from dbos_orm._store.revision import HEAD, REVISIONS, UPDATE_COMMAND, lock_schema, schema_revision
from dbos_orm.errors import ConfigurationError, SchemaVersionError
from dbos_orm.models import TransactionOutput

__all__ = [
    "alone",
    "create_transaction_output",
    "current",
    "downgrade",
    "downgrade_connection",
    "script_location",
    "sql",
    "transaction_output_sql",
    "upgrade",
    "upgrade_connection",
]

# Alembic's `context` and `op` are global to the process.
_ALEMBIC: Final = threading.Lock()


def upgrade(engine: Engine, revision: str = "head") -> str | None:
    """Bring the database of ``engine`` to a revision, the newest by default; nothing to do is no error.

    Returns the revision that it found, None in a database without tables of ours.

    Raises:
        SchemaVersionError: a newer library has migrated the database.
        ConfigurationError: there is no such revision.
    """
    with engine.connect() as connection:
        return upgrade_connection(connection, revision)


def upgrade_connection(connection: Connection, revision: str = "head") -> str | None:
    """Do what ``upgrade`` does, on one connection: for ``AsyncConnection.run_sync``.

    Inside a transaction of the caller's, nothing is committed; outside of one, all is.
    """
    with alone(connection):
        found = _require_known_revision(connection)
        _run(connection, command.upgrade, revision)
    return found


def create_transaction_output(connection: Connection) -> bool:
    """Create ``dbos_transaction_output`` unless it is there: all that a database without workflows needs.

    Returns whether it was created. Inside a transaction of the caller's, nothing is committed; outside of
    one, it is. For ``AsyncConnection.run_sync`` too.
    """
    with alone(connection):
        return second_database.create_transaction_output(connection)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the database of ``engine`` back to a revision; ``base`` removes every table with its rows.

    Raises:
        SchemaVersionError: a newer library has migrated the database.
        ConfigurationError: there is no such revision.
    """
    with engine.connect() as connection:
        downgrade_connection(connection, revision)


def downgrade_connection(connection: Connection, revision: str) -> None:
    """Do what ``downgrade`` does, on one connection: for ``AsyncConnection.run_sync``."""
    with alone(connection):
        if _require_known_revision(connection) is not None:
            _run(connection, command.downgrade, revision)


def current(engine: Engine) -> str | None:
    """The revision that the database of ``engine`` has; None when it has no tables of ours."""
    with engine.connect() as connection:
        return schema_revision(connection).found


def sql(database: str | URL, revision: str = "head") -> str:
    """The SQL that brings an empty database to ``revision``, or, for ``0001:0002``, from one to the other.

    ``database`` is a URL, or ``postgresql`` or ``sqlite``; it is not connected to.

    Raises:
        ConfigurationError: there is no such revision, or not such a database.
    """
    text = StringIO()
    config = _config(output_buffer=text)
    config.attributes["dialect"] = _dialect_name(database)
    with _ALEMBIC, _unknown_revisions_refused(revision):
        command.upgrade(config, revision, sql=True)
    return text.getvalue()


def transaction_output_sql(database: str | URL) -> str:
    """The SQL that creates ``dbos_transaction_output``; ``database`` as for ``sql``."""
    dialect = create_mock_engine(_dialect_name(database) + "://", lambda *_: None).dialect
    table = TransactionOutput.__table__
    return f"{str(CreateTable(table).compile(dialect=dialect)).strip()};\n"


def script_location() -> Path:
    """The folder of the migration scripts: in an installed package, or ``alembic/`` beside a checkout."""
    package = Path(__file__).parent
    # The second alone would not do: beside an installed package it is the Alembic library.
    for folder in (package / "migrations", package.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise ConfigurationError(
        "script_location", str(package), "the migration scripts beside it", "install dbos_orm again"
    )


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Open a transaction, unless the caller has one open, in which nobody else migrates this database."""
    if connection.in_transaction():
        lock_schema(connection)
        yield
        return
    if connection.dialect.name == "postgresql":
        # Under a stricter level, who waited for the lock would go on with the snapshot from before.
        connection.execution_options(isolation_level="READ COMMITTED")
    with connection.begin():
        lock_schema(connection)
        yield


def _dialect_name(database: str | URL) -> str:
    return str(database) if database in {"postgresql", "sqlite"} else normalized_url(database).get_backend_name()


def _require_known_revision(connection: Connection) -> str | None:
    revision = schema_revision(connection)
    if revision.is_ahead:
        raise SchemaVersionError(revision.found, HEAD, UPDATE_COMMAND)
    return revision.found


def _run(connection: Connection, run: Callable[[Config, str], None], revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    with _ALEMBIC, _unknown_revisions_refused(revision):
        run(config, revision)


def _config(output_buffer: StringIO | None = None) -> Config:
    config = Config(output_buffer=output_buffer)
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    return config


@contextmanager
def _unknown_revisions_refused(revision: str) -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise ConfigurationError(
            "revision", revision, f"one of {[*REVISIONS, 'head', 'base']}, or a step such as '+1'", str(error)
        ) from error
