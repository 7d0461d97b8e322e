"""The database that a command works on: the option ``--url``, and opening it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import OperationalError

from dbos_orm._dialects import sqlite_engine
from dbos_orm._dialects._urls import DEFAULT_URL, URL_VARIABLE, default_url, synchronous_url
from dbos_orm.errors import DatabaseUnavailableError

__all__ = ["UrlOption", "chosen_url", "exists", "open_database", "shown"]

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help=f"The database. Default: {URL_VARIABLE}, else {DEFAULT_URL}.", show_default=False),
]

_CONNECT_SECONDS: Final = 10


def chosen_url(url: str | None) -> URL:
    """The database of ``--url``, else of the environment, else the SQLite file; without an async driver."""
    return synchronous_url(url if url is not None else default_url())


def shown(url: URL) -> str:
    """The URL for people to read, without the password."""
    return url.render_as_string(hide_password=True)


def exists(url: URL) -> bool:
    """Whether connecting finds a database: SQLite would make an empty one in place of a missing file."""
    name = url.database or ""
    return url.get_backend_name() != "sqlite" or name.startswith("file:") or Path(name).exists()


@contextmanager
def open_database(url: URL) -> Iterator[Connection]:
    """Connect to the database of a command, and disconnect.

    Raises:
        ConfigurationError: SQLite in memory.
        DatabaseUnavailableError: it cannot be connected to.
    """
    engine = _engine(url)
    try:
        with _connect(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        return sqlite_engine(url, poolclass=NullPool)
    options: dict[str, Any] = {}
    if url.get_driver_name() in {"psycopg2", "psycopg"} and "connect_timeout" not in url.query:
        options["connect_timeout"] = _CONNECT_SECONDS
    return create_engine(url, poolclass=NullPool, connect_args=options)


def _connect(engine: Engine) -> Connection:
    begin = time.monotonic()
    try:
        return engine.connect()
    except OperationalError as error:
        seconds = round(time.monotonic() - begin, 3)
        raise DatabaseUnavailableError(shown(engine.url), seconds, error.orig) from error
