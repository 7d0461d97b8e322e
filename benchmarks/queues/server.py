"""A new database for each run."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import psycopg2
from sqlalchemy import make_url


class Database:
    """An empty database on the server of ``server``, a URL without a driver, while the block runs."""

    def __init__(self, server: str, name: str) -> None:
        self._server = server
        self._name = name
        self.url = make_url(server).set(database=name).render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        self._administer(f'DROP DATABASE IF EXISTS "{self._name}" WITH (FORCE)', f'CREATE DATABASE "{self._name}"')
        self._connection: Any = psycopg2.connect(self.url)
        self._connection.autocommit = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
        self._administer(f'DROP DATABASE IF EXISTS "{self._name}" WITH (FORCE)')

    def settle(self) -> None:
        """Write what earlier work left behind, so that nobody pays for it later."""
        self._ask("CHECKPOINT")

    def analyze(self) -> None:
        """Do what autovacuum would have done by and by for a table that has grown."""
        self._ask("VACUUM ANALYZE")

    def tells(self, condition: str) -> bool:
        """Whether the condition holds."""
        return bool(self._ask(f"SELECT {condition}"))

    def number(self, query: str) -> int:
        """What a query for one number answers."""
        return int(self._ask(query))

    def execute(self, statement: str) -> None:
        """Execute a statement in a transaction of its own."""
        self._ask(statement)

    def _ask(self, statement: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def _administer(self, *statements: str) -> None:
        connection: Any = psycopg2.connect(self._server)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.close()
