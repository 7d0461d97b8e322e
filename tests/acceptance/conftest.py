"""Fixtures of the tests in which processes, servers and connections fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.books import World
from tests.acceptance.ledger import Ledger
from tests.databases import TestDatabase


@pytest.fixture
def world(tmp_path: Path) -> World:
    """What the plain steps of this test do."""
    return World(tmp_path / "world")


@pytest.fixture
def ledger(database: TestDatabase) -> Ledger:
    """The books in a database of each kind."""
    return Ledger(database)
