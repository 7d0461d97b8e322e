"""For the ``env.py`` of a project with migrations of its own: keep its autogenerate off our tables.

.. code-block:: python

    from dbos_orm.alembic import include_name, include_object

    context.configure(..., include_name=include_name, include_object=include_object)

Both are needed: the first hides our tables where they exist in the database, so that none is proposed
for dropping; the second hides them in your metadata, so that none is proposed for creating.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import MetaData
from sqlalchemy.schema import SchemaItem

from dbos_orm._store.revision import VERSION_TABLE
from dbos_orm.models import metadata, transaction_metadata

__all__ = ["include_name", "include_object", "is_our_table", "target_metadata"]

target_metadata: Final[MetaData] = metadata
"""The tables of the main database."""

_OUR_TABLES: Final = frozenset({*metadata.tables, *transaction_metadata.tables, VERSION_TABLE})


def is_our_table(name: str | None) -> bool:
    """Whether dbos_orm makes and migrates the table of this name."""
    return name in _OUR_TABLES


def include_name(name: str | None, type_: str, _parent_names: Mapping[str, str | None]) -> bool:
    """Tell autogenerate to leave our tables in the database alone."""
    return not (type_ == "table" and is_our_table(name))


def include_object(
    _object: SchemaItem, name: str | None, type_: str, _reflected: bool, _compare_to: SchemaItem | None
) -> bool:
    """Tell autogenerate to leave our tables in your metadata alone."""
    return not (type_ == "table" and is_our_table(name))
