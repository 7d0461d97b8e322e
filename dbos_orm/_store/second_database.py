"""The one table in a database that has the user's rows but not the workflows: a step's record beside its rows."""

from __future__ import annotations

import typing
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Text,
    bindparam,
    cast,
    false,
    insert,
    inspect,
    literal_column,
    select,
)
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeEngine

from dbos_orm._context import RecordedStep, StepKey
from dbos_orm._dialects import Dialect
from dbos_orm._store.entries import OutputEntry
from dbos_orm._store.revision import default_schema, lock_schema
from dbos_orm.errors import TransactionOutputMissingError
from dbos_orm.models import TransactionOutput, transaction_metadata

__all__ = [
    "create_transaction_output",
    "find_output",
    "insert_output",
    "require_transaction_output",
    "settle_output",
]

_TABLE: Final = TransactionOutput.__table__
_TEXT: Final = Text()
_FIELDS: Final[dict[str, TypeEngine[Any]]] = {
    "workflow_id": _TEXT, "generation": _TEXT, "scope": _TEXT, "step_id": Integer(), "owner_token": _TEXT,
    "write_id": BigInteger(), "name": _TEXT, "output": _TEXT, "error": _TEXT, "serializer": _TEXT, "started_at": _TEXT,
    "digest": _TEXT,
}  # fmt: skip


def create_transaction_output(connection: Connection) -> bool:
    """Create ``dbos_transaction_output`` in a second database; False if it is there already.

    Any number of processes may do so at once. Nothing is committed.
    """
    lock_schema(connection)
    is_missing = not _has_table(connection)
    if is_missing:
        transaction_metadata.create_all(connection, checkfirst=False)
    return is_missing


def require_transaction_output(connection: Connection, *, create: bool = False) -> None:
    """Return when the table is there, and this connection may write to it; with ``create`` make it.

    Raises:
        TransactionOutputMissingError: it is not there.
    """
    if not _has_table(connection):
        if not create:
            raise TransactionOutputMissingError(connection.engine.url.render_as_string(), _TABLE.name)
        create_transaction_output(connection)
    # A role that may not write hears of it here, and the first step does not take it for an error of its own.
    connection.execute(_INSERT_NOTHING)


def insert_output(connection: Connection, dialect: Dialect, entry: OutputEntry) -> bool:
    """Record a step in the open transaction; False if its key is taken.

    It waits for a transaction that is inserting the same key; not for long if it is contested.
    """
    if entry.is_contested:
        dialect.bound_locks(connection)
    statement = dialect.prepared("transaction output", lambda: _insertion(dialect))
    return bool(statement.execute(connection, {name: getattr(entry, name) for name in _FIELDS}))


def find_output(connection: Connection, workflow_id: str, generation: str, key: StepKey) -> RecordedStep | None:
    """What is recorded of a step, or None."""
    place = (workflow_id, generation, *key)
    row = connection.execute(_FIND, dict(zip(_KEY, place, strict=True))).one_or_none()
    return None if row is None else RecordedStep(row.name, "transaction", *row[1:])


def settle_output(
    connection: Connection, dialect: Dialect, entry: OutputEntry, *, keep: bool = False
) -> RecordedStep | None:
    """What is recorded under the key of ``entry``, when nobody is about to record anything there any more.

    None: the key was free; with ``keep`` the entry has it now.
    """
    savepoint = connection.begin_nested()
    is_free = insert_output(connection, dialect, entry)
    if is_free and not keep:
        savepoint.rollback()
    else:
        savepoint.commit()
    if is_free:
        return None
    return find_output(connection, entry.workflow_id, entry.generation, StepKey(entry.scope, entry.step_id))


def _has_table(connection: Connection) -> bool:
    return inspect(connection).has_table(_TABLE.name, schema=default_schema(connection))


def _insertion(dialect: Dialect) -> ClauseElement:
    given = dialect.one_row(_FIELDS)
    values: dict[str, ColumnElement[Any]] = {name: given.c[name] for name in _FIELDS}
    values["output"] = cast(given.c.output, TransactionOutput.output.type)
    values["error"] = cast(given.c.error, TransactionOutput.error.type)
    values["started_at"] = dialect.instant_from_text(given.c.started_at)
    values["completed_at"] = dialect.now()
    # SQLite would take ON CONFLICT for a part of a SELECT without WHERE.
    chosen = select(*values.values()).select_from(given).where(literal_column("1 = 1"))
    inserted = dialect.insert(_TABLE).from_select(list(values), chosen, include_defaults=False)
    return typing.cast("ClauseElement", inserted.on_conflict_do_nothing().returning(_TABLE.c.write_id))


_KEY: Final = tuple(column.name for column in _TABLE.primary_key)

_FOUND: Final[list[Any]] = [
    TransactionOutput.name,
    cast(TransactionOutput.output, Text).label("output"),
    cast(TransactionOutput.error, Text).label("error"),
    TransactionOutput.serializer,
    literal_column("NULL").label("child_id"),
    TransactionOutput.write_id,
    TransactionOutput.owner_token,
    TransactionOutput.digest,
]
_FIND: Final = select(*_FOUND).where(*(column == bindparam(column.name) for column in _TABLE.primary_key))

_INSERT_NOTHING: Final = insert(_TABLE).from_select(
    list(_KEY), select(*_TABLE.primary_key).where(false()), include_defaults=False
)
