"""Column types that mean the same on PostgreSQL and on SQLite."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import JSON, BigInteger, ColumnElement, DateTime, Dialect, Text, cast
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["Attributes", "Instant", "Microseconds", "Payload"]

_MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """A point in time: ``timestamptz`` on PostgreSQL, ISO text in UTC of fixed width on SQLite.

    The text (``2026-11-22T12:00:00.000000+00:00``) sorts as the instants do. What comes back is
    aware and in UTC, whatever the time zone of the session.

    Raises:
        ValueError: the datetime is naive; it names no instant.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None or value.utcoffset() is None:
            raise ValueError(
                f"{value!r} is a naive datetime; an instant needs a time zone: datetime.now(UTC), "
                "or value.replace(tzinfo=...) for a zone you know"
            )
        if dialect.name == "sqlite":
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        return value

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        instant = datetime.fromisoformat(value) if isinstance(value, str) else value
        return instant.astimezone(UTC)


class Microseconds(TypeDecorator[timedelta]):
    """A duration, stored as a whole number of microseconds (BIGINT).

    Not ``INTERVAL``, which SQLite does not have and which counts months apart from days.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, _dialect: Dialect) -> int | None:
        return None if value is None else value // _MICROSECOND

    def process_result_value(self, value: int | None, _dialect: Dialect) -> timedelta | None:
        return None if value is None else timedelta(microseconds=value)


class Payload(TypeDecorator[str]):
    """JSON text that goes in and comes out as the very same ``str``: nothing parses it on the way.

    The column is ``JSON`` on PostgreSQL, which stores the text as it is (``JSONB`` reorders keys,
    rewrites numbers and refuses ``\\u0000``), and ``TEXT`` on SQLite, where a column called JSON has
    numeric affinity and would turn the payload ``1e22`` into a float. ``JSON`` instead of ``TEXT`` on
    PostgreSQL because the server then refuses what is not JSON, also from an INSERT by hand, and
    because ``output ->> 'total'`` works in any SQL, view or index without a cast.

    Reading is a cast to text in the SELECT or RETURNING list: the drivers would otherwise parse a
    JSON column. In statements, ``WorkflowStatus.output["total"].as_integer()`` works on both
    databases; PostgreSQL cannot look into a payload that holds ``\\u0000`` or half a surrogate pair, and
    such a row fails the statement that does. A statement that hides the column's type (VALUES in a
    FROM) must cast to it.
    """

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(JSON(none_as_null=True))

    def bind_processor(self, _dialect: Dialect) -> None:
        return None

    def result_processor(self, _dialect: Dialect, _coltype: object) -> None:
        return None

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str] | None:
        return Text().dialect_impl(dialect).literal_processor(dialect)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return cast(column, Text)

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        return self.impl_instance.coerce_compared_value(op, value)


Attributes = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""JSON that people filter by, given and read as Python objects: ``JSONB`` on PostgreSQL."""
