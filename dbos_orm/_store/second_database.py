"""The one table in a database that has the user's rows but not the workflows."""

from __future__ import annotations

from sqlalchemy import Connection

from dbos_orm._store.revision import lock_schema
from dbos_orm.models import transaction_metadata

__all__ = ["create_transaction_output"]


def create_transaction_output(connection: Connection) -> None:
    """Create ``dbos_transaction_output`` in a second database, unless it is there.

    Any number of processes may do so at once. Nothing is committed.
    """
    lock_schema(connection)
    transaction_metadata.create_all(connection)
