"""Databases for tests: one per test, copied from a template that holds the migrated schema."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pytest_postgresql.janitor import DatabaseJanitor
from sqlalchemy import URL, Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from dbos_orm import schema
from tests.engines import async_engine_for, engine_for

Backend = Literal["postgresql", "sqlite"]

POSTGRESQL: Backend = "postgresql"
SQLITE: Backend = "sqlite"
ASYNC_DRIVERS = {POSTGRESQL: "postgresql+asyncpg", SQLITE: "sqlite+aiosqlite"}


class Template(Protocol):
    """A PostgreSQL server and its database to copy (None: an empty one), in pytest-postgresql's words."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def user(self) -> str: ...
    @property
    def password(self) -> str | None: ...
    @property
    def maintenance_dbname(self) -> str: ...
    @property
    def template_dbname(self) -> str | None: ...


@dataclass(frozen=True)
class TestDatabase:
    """One test's database, and the engines that the test makes for it.

    The engines are disposed of when the test ends, before the database is dropped.
    """

    __test__: ClassVar[bool] = False  # The name is no reason for pytest to look for tests in it.

    backend: Backend
    url: URL
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)
    _engines: list[Engine] = field(default_factory=list, repr=False)
    _async_engines: list[AsyncEngine] = field(default_factory=list, repr=False)

    @property
    def async_url(self) -> URL:
        """The same database through the driver for asyncio."""
        return self.url.set(drivername=ASYNC_DRIVERS[self.backend])

    def make_engine(self, **options: Any) -> Engine:
        """A new engine, with its own pool; ``options`` are those of ``create_engine``."""
        engine = engine_for(self.url, **options)
        self._engines.append(engine)
        return engine

    @cached_property
    def onlooker(self) -> Engine:
        """The engine of another program, which looks again and again and does not wait for who writes."""
        return self.make_engine(pool_size=1).execution_options(sqlite_deferred=True)

    def make_async_engine(self, **options: Any) -> AsyncEngine:
        """A new asyncio engine, for the loop that pytest-asyncio runs an ``async def`` test on.

        A test that runs a loop of its own makes its engine with ``async_engine_for(database.async_url)``
        and disposes of it there: connections cannot be closed from another loop.
        """
        assert self._loop is not None, "only an `async def` test has a loop to close the connections on"
        engine = async_engine_for(self.async_url, **options)
        self._async_engines.append(engine)
        return engine

    def terminate_connections(self) -> int:
        """Kill every backend that is connected to this PostgreSQL database; say how many there were."""
        assert self.backend == POSTGRESQL, "a SQLite database has no backends"
        engine = engine_for(self.url)
        try:
            with engine.begin() as connection:
                killed = connection.scalars(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                ).all()
        finally:
            engine.dispose()
        return len(killed)

    def dispose(self) -> None:
        """Close the connections of all engines made here."""
        for async_engine in self._async_engines:
            assert self._loop is not None
            self._loop.run_until_complete(async_engine.dispose())
        for engine in self._engines:
            engine.dispose()


def install_schema(engine: Engine) -> None:
    """Bring an empty database to the schema of this dbos_orm."""
    schema.upgrade(engine)


def load_schema(*, host: str, port: int, user: str, password: str | None, dbname: str, **_: object) -> None:
    """Install the schema in a template of pytest-postgresql, which calls this."""
    _install_schema_at(URL.create("postgresql+psycopg2", user, password, host, port, dbname))


def make_sqlite_template(file: Path) -> None:
    """Make a SQLite database with the schema that can be copied as one file."""
    _install_schema_at(sqlite_url(file))
    # The last connection has moved the log into the database and removed it.
    assert not file.with_name(f"{file.name}-wal").exists()


def sqlite_url(file: Path) -> URL:
    """The SQLAlchemy URL of a SQLite file."""
    return URL.create("sqlite", database=str(file))


def _install_schema_at(url: URL) -> None:
    engine = engine_for(url)
    try:
        install_schema(engine)
    finally:
        engine.dispose()


def create_postgresql(template: Template) -> tuple[URL, Callable[[], None]]:
    """Copy a template to a new database of its server; return its URL and the function that drops it."""
    janitor = DatabaseJanitor(
        user=template.user,
        host=template.host,
        port=template.port,
        password=template.password,
        dbname=f"dbos_orm_{secrets.token_hex(6)}",
        template_dbname=template.template_dbname,
        maintenance_dbname=template.maintenance_dbname,
    )
    janitor.init()
    address = (template.user, template.password, template.host, template.port, janitor.dbname)
    return URL.create("postgresql+psycopg2", *address), janitor.drop


def create_sqlite(template: Path | None, folder: Path) -> tuple[URL, Callable[[], None]]:
    """Copy a template to a new file in ``folder``; return its URL and the function that removes it."""
    file = folder / f"dbos_orm_{secrets.token_hex(6)}.db"
    if template is not None:
        shutil.copyfile(template, file)

    def remove() -> None:
        for path in folder.glob(f"{file.name}*"):
            path.unlink()

    return sqlite_url(file), remove
