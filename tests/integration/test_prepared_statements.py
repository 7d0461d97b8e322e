"""Statements that are prepared are planned again when their plan may have become a bad one."""

from __future__ import annotations

from math import inf

import pytest
from sqlalchemy import Text, bindparam, cast, select

from dbos_orm import Config
from dbos_orm._clock import Clock
from dbos_orm._dialects import Prepared, _prepared, dialect_of
from dbos_orm._dialects._prepared import PoolerNotice, PreparingConnection
from tests.databases import TestDatabase


@pytest.fixture
def connection(postgresql_database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> PreparingConnection:
    """A connection on which nothing is slow."""
    monkeypatch.setattr(_prepared, "_PLAN_SECONDS", -inf)
    monkeypatch.setattr(_prepared, "_SLOW_SECONDS", inf)
    engine = postgresql_database.make_engine(isolation_level="AUTOCOMMIT")
    return PreparingConnection(engine, PoolerNotice())


@pytest.fixture
def echo(postgresql_database: TestDatabase) -> Prepared:
    dialect = dialect_of(postgresql_database.make_engine(), Clock(), Config())
    return dialect.prepared("echo", lambda: select(cast(bindparam("word", type_=Text()), Text)))


def prepared_names(connection: PreparingConnection) -> list[str]:
    return [name for [name] in connection.execute("SELECT name FROM pg_prepared_statements")]


def test_what_was_slow_is_prepared_anew(
    connection: PreparingConnection, echo: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        echo.execute(connection, {"word": "quick"})
    [before] = prepared_names(connection)
    monkeypatch.setattr(_prepared, "_SLOW_SECONDS", -inf)
    echo.execute(connection, {"word": "slow"})
    # An error of DEALLOCATE must mean that nothing was done, so it comes in front of the next execution.
    assert prepared_names(connection) == [before]
    assert echo.execute(connection, {"word": "again"}) == [("again",)]
    [after] = prepared_names(connection)
    assert after != before
    connection.close()


def test_the_plan_of_a_slow_statement_is_kept_for_a_while(
    connection: PreparingConnection, echo: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_prepared, "_PLAN_SECONDS", inf)
    monkeypatch.setattr(_prepared, "_SLOW_SECONDS", -inf)
    for _ in range(3):
        echo.execute(connection, {"word": "slow"})
    before = prepared_names(connection)
    echo.execute(connection, {"word": "slow"})
    assert prepared_names(connection) == before
    connection.close()


def test_a_slow_statement_that_a_pooler_has_lost_is_sent_as_text(
    connection: PreparingConnection, echo: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_prepared, "_SLOW_SECONDS", -inf)
    for _ in range(5):
        echo.execute(connection, {"word": "slow"})
    connection.execute("DEALLOCATE ALL")
    for _ in range(2):
        assert echo.execute(connection, {"word": "lost"}) == [("lost",)]
    assert prepared_names(connection) == []
    connection.close()
