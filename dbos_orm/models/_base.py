"""The declarative base of every table in the main database, and how constraints are named."""

from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import MetaData, Table, Text
from sqlalchemy.orm import DeclarativeBase

from dbos_orm.models._types import Instant, Microseconds

__all__ = ["NAMING_CONVENTION", "Base", "metadata"]

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name, so that a later migration can find it on both databases."""

metadata = MetaData(naming_convention=NAMING_CONVENTION)
"""Every table of the main database, in the connection's default schema."""

TYPES_OF_ANNOTATIONS = {str: Text, datetime: Instant, timedelta: Microseconds}


class Base(DeclarativeBase):
    """The base of the library's models; yours stays your own."""

    __table__: ClassVar[Table]
    metadata = metadata
    type_annotation_map = TYPES_OF_ANNOTATIONS
