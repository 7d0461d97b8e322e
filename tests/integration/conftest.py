"""Fixtures of the tests that run an application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from dbos_orm import DBOS, AsyncDBOS
from tests.databases import TestDatabase
from tests.integration.shop import launched, launched_async


@pytest.fixture
def dbos(database: TestDatabase) -> Iterator[DBOS]:
    """A launched application on ``database``."""
    with launched(database) as application:
        yield application


@pytest.fixture
async def async_dbos(database: TestDatabase) -> AsyncIterator[AsyncDBOS]:
    """A launched application on ``database``, for coroutines."""
    async with launched_async(database) as application:
        yield application
