"""The PostgreSQL server, with a database for each contender, and its counter of writing transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from sqlalchemy import URL, make_url

from tests.postgres_server import PostgresServer


class Server:
    """A server on which we may create and drop databases called ``dbos_orm_benchmark_...``."""

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql")
        self._connection: Any = psycopg2.connect(self._rendered(self._url))
        self._connection.autocommit = True

    def close(self) -> None:
        """Let go of the server."""
        self._connection.close()

    def create_database(self, name: str) -> str:
        """Create an empty database in the place of what was there, and return its URL."""
        name = f"dbos_orm_benchmark_{name}"
        self._ask(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._ask(f'CREATE DATABASE "{name}"')
        return self._rendered(self._url.set(database=name))

    def drop_database(self, url: str) -> None:
        """Drop what ``create_database`` made."""
        self._ask(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')

    def count_writing_transactions(self) -> int:
        """How many transactions of the server have ever written: each of them, when it commits, waits for the disk."""
        return int(self._ask("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")[0])

    def describe(self) -> str:
        """Version, and the settings that decide what a commit costs."""
        version = self._ask("SHOW server_version")[0]
        settings = [f"{name}={self._ask(f'SHOW {name}')[0]}" for name in ("fsync", "synchronous_commit")]
        return f"PostgreSQL {version}, {', '.join(settings)}"

    def _ask(self, statement: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone() if cursor.description else None

    @staticmethod
    def _rendered(url: URL) -> str:
        return url.render_as_string(hide_password=False)


@contextmanager
def server_at(url: str | None) -> Iterator[Server]:
    """The server of that URL, or one of our own with fsync on, which is removed afterwards."""
    own = PostgresServer(is_durable=True) if url is None else None
    try:
        server = Server(own.address.url("postgres") if own is not None else make_url(url or ""))
        try:
            yield server
        finally:
            server.close()
    finally:
        if own is not None:
            own.remove()
