"""A database for each contender: on one PostgreSQL server, and SQLite files in one folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy import URL, make_url

from tests.postgres_server import PostgresServer


class Databases:
    """Databases called ``dbos_orm_benchmark_...`` on the server of ``url``, and files in ``folder``.

    Each is empty when it is asked for the first time. ``server`` is the URL that they were made with.
    """

    def __init__(self, url: URL, folder: Path) -> None:
        self._url = url.set(drivername="postgresql")
        self.server = _rendered(self._url)
        self._folder = folder
        self._names: list[str] = []
        self._connection: Any = psycopg2.connect(_rendered(self._url))
        self._connection.autocommit = True

    def url(self, key: str, *, is_sqlite: bool) -> str:
        """The URL, without a driver, of the database of one contender."""
        if is_sqlite:
            return f"sqlite:///{self._folder / key}.sqlite"
        name = f"dbos_orm_benchmark_{key}"
        if name not in self._names:
            self._ask(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            self._ask(f'CREATE DATABASE "{name}"')
            self._names.append(name)
        return _rendered(self._url.set(database=name))

    def close(self) -> None:
        """Drop the databases that were asked for, and let go of the server."""
        for name in self._names:
            self._ask(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._connection.close()

    def count_writing_transactions(self) -> int:
        """How many transactions of the server have ever written: when one commits, it waits for the disk."""
        return int(self._ask("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")[0])

    def describe(self) -> str:
        """The version of the server, and the settings that decide what a commit costs."""
        version = self._ask("SHOW server_version")[0].split()[0]
        settings = [f"{name} {self._ask(f'SHOW {name}')[0]}" for name in ("fsync", "synchronous_commit")]
        return f"PostgreSQL {version}, {', '.join(settings)}"

    def _ask(self, statement: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone() if cursor.description else None


@contextmanager
def databases_at(url: str | None) -> Iterator[Databases]:
    """Databases on the server of that URL, or on one of our own with fsync on, which is removed afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dbos_orm_benchmark_"))
        if url is None:
            server = PostgresServer(is_durable=True)
            stack.callback(server.remove)
            address = server.address.url("postgres")
        else:
            address = make_url(url)
        databases = Databases(address, Path(folder))
        stack.callback(databases.close)
        yield databases


def _rendered(url: URL) -> str:
    return url.render_as_string(hide_password=False)
