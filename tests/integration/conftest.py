"""Fixtures of the tests that run an application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from dbos_orm import DBOS, AsyncDBOS
from dbos_orm._application import AnyDBOS
from dbos_orm._binds import ResolvedBind
from tests.conftest import MakeDatabase
from tests.databases import TestDatabase
from tests.integration.pairs import PAIRS, Pair, make_pair
from tests.integration.queued import bound
from tests.integration.shop import launched, launched_async, stop_noting


@pytest.fixture(autouse=True)
def applications(make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shuts down what a test leaves bound or launched, before its databases are dropped, and what notes statements."""
    bound: list[AnyDBOS] = []
    bind = AnyDBOS._bind

    def noting(application: AnyDBOS, resolved: ResolvedBind) -> None:
        bound.append(application)
        bind(application, resolved)

    monkeypatch.setattr(AnyDBOS, "_bind", noting)
    yield
    for application in bound:
        application.shut_down(0)
    stop_noting()


@pytest.fixture
def dbos(database: TestDatabase) -> Iterator[DBOS]:
    """A launched application on ``database``."""
    with launched(database) as application:
        yield application


@pytest.fixture
def starter(database: TestDatabase) -> Iterator[DBOS]:
    """An application on ``database`` that starts and does not execute: what it starts stays where it waits."""
    with bound(database) as application:
        yield application


@pytest.fixture
async def async_dbos(database: TestDatabase) -> AsyncIterator[AsyncDBOS]:
    """A launched application on ``database``, for coroutines."""
    async with launched_async(database) as application:
        yield application


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, make_database: MakeDatabase) -> Pair:
    """Two databases, of every combination of kinds."""
    return make_pair(make_database, *request.param)
