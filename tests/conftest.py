"""Fixtures: databases, servers and processes, each gone when its test has ended."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from pytest_postgresql.factories import postgresql_noproc

from tests.databases import (
    POSTGRESQL,
    SQLITE,
    Backend,
    TestDatabase,
    create_postgresql,
    create_sqlite,
    install_schema,
    load_schema,
    make_sqlite_template,
)
from tests.postgres_server import NoPostgresError, PostgresServer, ServerAddress, given_server
from tests.processes import Processes
from tests.proxy import Proxy
from tests.scratch import ScratchFolder


class MakeDatabase(Protocol):
    """Makes one more database for this test."""

    def __call__(self, backend: Backend, *, schema: bool = True) -> TestDatabase: ...


def start_server() -> PostgresServer:
    """A new server; where there is no program to start, a failure in CI and a skip elsewhere."""
    try:
        return PostgresServer()
    except NoPostgresError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[ServerAddress]:
    """The PostgreSQL server that the tests of this process share; it is not to be stopped."""
    if server := given_server():
        yield server
        return
    own = start_server()
    try:
        yield own.address
    finally:
        own.remove()


# The name is one of this process's own: several may test on one given server.
postgresql_template = postgresql_noproc(
    depends_on="postgres_server", dbname=f"dbos_orm_{secrets.token_hex(6)}", load=[load_schema]
)


@pytest.fixture(scope="session")
def sqlite_folder() -> Iterator[Path]:
    folder = ScratchFolder()
    yield folder.path
    folder.remove()


@pytest.fixture(scope="session")
def sqlite_template(sqlite_folder: Path) -> Path:
    file = sqlite_folder / "template.db"
    make_sqlite_template(file)
    return file


@pytest.fixture
async def loop_of_test() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture
def make_database(request: pytest.FixtureRequest) -> Iterator[MakeDatabase]:
    """For a test that needs more than one database."""
    # While this fixture holds the loop, it is open, and can close the connections that belong to it.
    loop = request.getfixturevalue("loop_of_test") if inspect.iscoroutinefunction(request.function) else None
    with ExitStack() as stack:

        def make(backend: Backend, *, schema: bool = True) -> TestDatabase:
            # Asked for by name, so that a test on SQLite alone starts no server.
            if backend == POSTGRESQL:
                url, drop = create_postgresql(
                    request.getfixturevalue("postgresql_template" if schema else "postgres_server")
                )
            else:
                template = request.getfixturevalue("sqlite_template") if schema else None
                url, drop = create_sqlite(template, request.getfixturevalue("sqlite_folder"))
            stack.callback(drop)
            database = TestDatabase(backend, url, loop)
            stack.callback(database.dispose)
            return database

        yield make


@pytest.fixture(params=[POSTGRESQL, SQLITE])
def database(request: pytest.FixtureRequest, make_database: MakeDatabase) -> TestDatabase:
    """A database of each kind with the schema installed: the test runs once on either."""
    return make_database(request.param)


@pytest.fixture(params=[POSTGRESQL, SQLITE])
def empty_database(request: pytest.FixtureRequest, make_database: MakeDatabase) -> TestDatabase:
    """A database of each kind with nothing in it: the test runs once on either."""
    return make_database(request.param, schema=False)


@pytest.fixture
def postgresql_database(make_database: MakeDatabase) -> TestDatabase:
    """A PostgreSQL database with the schema installed."""
    return make_database(POSTGRESQL)


@pytest.fixture
def sqlite_database(make_database: MakeDatabase) -> TestDatabase:
    """A SQLite database with the schema installed."""
    return make_database(SQLITE)


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for this test alone, to be stopped, restarted and killed."""
    server = start_server()
    yield server
    server.remove()


@pytest.fixture
def private_database(request: pytest.FixtureRequest, private_postgres: PostgresServer) -> Iterator[TestDatabase]:
    """A database with the schema installed, on the server ``private_postgres``."""
    loop = request.getfixturevalue("loop_of_test") if inspect.iscoroutinefunction(request.function) else None
    url, _ = create_postgresql(private_postgres.address)
    database = TestDatabase(POSTGRESQL, url, loop)
    install_schema(database.make_engine())
    yield database
    database.dispose()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts child processes; those still alive when the test ends are killed."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture
def make_proxy() -> Iterator[Callable[[TestDatabase], Proxy]]:
    """Puts a TCP proxy before a PostgreSQL database."""
    with ExitStack() as stack:

        def make(database: TestDatabase) -> Proxy:
            return stack.enter_context(Proxy(database.url))

        yield make
