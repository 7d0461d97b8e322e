"""Telling databases apart: by asking them, whatever their URLs say."""

from __future__ import annotations

import secrets
from pathlib import Path

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import sessionmaker

from dbos_orm import Config
from dbos_orm._clock import Clock
from dbos_orm._dialects import dialect_of
from dbos_orm._drivers.databases import Databases
from dbos_orm._drivers.gateway import Gateway
from dbos_orm._drivers.sessions import Database, SessionSource
from tests.conftest import MakeDatabase
from tests.databases import POSTGRESQL, SQLITE, TestDatabase
from tests.engines import engine_for
from tests.postgres_server import PostgresServer


def databases_of(engine: Engine) -> Databases:
    gateway = Gateway(engine, dialect_of(engine, Clock(), Config()), Config())
    own = Database(is_own=True, writer=None)
    databases = Databases(gateway, Config(), SessionSource(sessionmaker(engine), engine, gateway.dialect, own))
    with engine.connect() as connection:
        databases.learn_own(connection)
    return databases


def is_own(databases: Databases, engine: Engine) -> bool:
    with engine.connect() as connection:
        return databases.is_own(connection)


def test_another_engine_to_the_same_database_is_recognized(database: TestDatabase) -> None:
    databases = databases_of(database.make_engine())
    assert is_own(databases, database.make_engine())
    assert is_own(databases, database.make_engine().execution_options(sqlite_deferred=True))


def test_another_database_of_the_same_kind_is_told_apart(database: TestDatabase, make_database: MakeDatabase) -> None:
    databases = databases_of(database.make_engine())
    assert not is_own(databases, make_database(database.backend).make_engine())


def test_databases_of_different_kinds_are_told_apart(make_database: MakeDatabase) -> None:
    databases = databases_of(make_database(POSTGRESQL).make_engine())
    assert not is_own(databases, make_database(SQLITE).make_engine())


def test_an_engine_is_asked_once(database: TestDatabase) -> None:
    databases, other = databases_of(database.make_engine()), database.make_engine()
    with other.connect() as connection:
        assert databases.is_own(connection)
        connection.connection.invalidate()  # so that nobody could ask it again
        assert databases.is_own(connection)


def test_another_driver_and_address_of_one_server_are_no_difference(postgresql_database: TestDatabase) -> None:
    url = postgresql_database.url
    other = postgresql_database.make_engine()
    databases = databases_of(other)
    for address in (url.set(drivername="postgresql+psycopg"), url.set(host="localhost")):
        engine = create_engine(address)
        assert is_own(databases, engine)
        engine.dispose()


def test_the_same_database_with_other_tables_in_its_path_is_another(postgresql_database: TestDatabase) -> None:
    databases = databases_of(postgresql_database.make_engine())
    elsewhere = postgresql_database.make_engine(connect_args={"options": "-csearch_path=elsewhere"})
    assert not is_own(databases, elsewhere)


def test_a_schema_that_was_chosen_for_the_tables_is_looked_at(postgresql_database: TestDatabase) -> None:
    engine = postgresql_database.make_engine()
    databases = databases_of(engine.execution_options(schema_translate_map={None: "public"}))
    elsewhere = postgresql_database.make_engine(connect_args={"options": "-csearch_path=elsewhere"})
    assert is_own(databases, elsewhere), "our statements name the schema, so that the path does not matter"


def test_a_server_that_was_restarted_is_the_same(
    private_database: TestDatabase, private_postgres: PostgresServer
) -> None:
    databases, other = databases_of(private_database.make_engine()), private_database.make_engine()
    private_postgres.restart()
    assert is_own(databases, other)


def test_a_role_without_privileges_may_ask(postgresql_database: TestDatabase) -> None:
    databases = databases_of(postgresql_database.make_engine())
    role = f"plain_{secrets.token_hex(6)}"  # a name of the whole server, on which others may test too
    with postgresql_database.make_engine().begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} NOLOGIN"))
    engine = postgresql_database.make_engine()
    with engine.connect() as connection:
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        assert databases.is_own(connection)
    with engine.begin() as connection:
        connection.execute(text(f"DROP ROLE {role}"))


def test_a_file_is_the_same_under_every_name(sqlite_database: TestDatabase, tmp_path: Path) -> None:
    databases = databases_of(sqlite_database.make_engine())
    assert sqlite_database.url.database is not None
    link = tmp_path / "link.db"
    link.symlink_to(sqlite_database.url.database)
    engine = engine_for(f"sqlite:///{link}")
    assert is_own(databases, engine)
    engine.dispose()


def test_a_database_in_memory_is_nobody_elses() -> None:
    engines = [create_engine("sqlite://"), create_engine("sqlite://")]
    dialect = dialect_of(engine_for("sqlite:////tmp/never-opened.db"), Clock(), Config())
    with engines[0].connect() as one, engines[1].connect() as other:
        assert dialect.identity(one) != dialect.identity(other)
    for engine in engines:
        engine.dispose()
