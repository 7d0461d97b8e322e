"""A connection of the library's own for one thread that asks again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dbos_orm._dialects import AnyConnection, DirectConnection
from dbos_orm._drivers.gateway import Gateway

T = TypeVar("T")


class OwnLine:
    """Calls verbs on one connection that it keeps, so that their statements stay prepared; one caller at a time.

    Nothing is repeated: an error drops the connection and is the caller's.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._connection: DirectConnection | None = None

    def once(self, verb: Callable[[AnyConnection], T]) -> T:
        """Call a verb of one statement, which is a transaction of its own."""
        if self._gateway.dialect.is_guest or self._gateway.dialect.begins_by_driver:
            return self.transaction(verb)
        return self._gateway.blocking(lambda: self._called(verb, is_transaction=False))

    def transaction(self, verb: Callable[[AnyConnection], T]) -> T:
        """Call a verb in a transaction."""
        if self._gateway.dialect.is_guest:
            return self._gateway.blocking(lambda: self._gateway.transaction(verb))
        return self._gateway.blocking(lambda: self._called(verb, is_transaction=True))

    def close(self) -> None:
        """Give the connection back."""
        self._gateway.blocking(self._close)

    def _called(self, verb: Callable[[AnyConnection], T], *, is_transaction: bool) -> T:
        dialect = self._gateway.dialect
        with self._gateway.writing():
            if self._connection is None:
                self._connection = dialect.direct_connection(self._gateway.engine)
            connection = self._connection
            try:
                if not is_transaction:
                    return verb(connection)
                if dialect.begins_by_driver:
                    with connection.transaction():
                        return verb(connection)
                connection.execute(dialect.begin)
                result = verb(connection)
                connection.execute("COMMIT")
            except BaseException:
                self._connection = None
                connection.drop()
                raise
            return result

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
