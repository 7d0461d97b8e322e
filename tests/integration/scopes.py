"""Where a start may be staged: sessions, registries and connections of the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dbos_orm import Config
from tests.databases import TestDatabase

UNHURRIED = Config(tick=60)
"""A tick that finds nothing before the test is over: what is found at once was told of."""


@contextmanager
def session_of(database: TestDatabase) -> Iterator[Session]:
    with Session(database.make_engine()) as session:
        yield session


@contextmanager
def scoped_session_of(database: TestDatabase) -> Iterator[scoped_session[Session]]:
    registry = scoped_session(sessionmaker(database.make_engine()))
    yield registry
    registry.remove()


@contextmanager
def connection_of(database: TestDatabase) -> Iterator[Connection]:
    with database.make_engine().connect() as connection:
        yield connection


SCOPES = pytest.mark.parametrize("scope_of", [session_of, scoped_session_of, connection_of])
