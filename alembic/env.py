"""Runs the migrations: for ``alembic`` in this repository, and for ``dbos_orm.schema`` everywhere.

The caller may hand over a connection in ``config.attributes["connection"]`` or, for ``--sql``, the name
of a database in ``config.attributes["dialect"]``. Otherwise the URL is ``sqlalchemy.url`` of the
configuration, else DBOS_DATABASE_URL, else the SQLite file ``dbos.sqlite``. Logging is the caller's.
"""

from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Connection, MetaData, NullPool, Table, create_engine

from dbos_orm._dialects._urls import default_url, synchronous_url
from dbos_orm._store.revision import VERSION_TABLE, advisory_lock, default_schema
from dbos_orm.alembic import is_our_table
from dbos_orm.models import metadata
from dbos_orm.schema import alone


def include_name(name: str | None, type_: str, _parent_names: object) -> bool:
    """Compare our tables only: everything else in the database is the user's."""
    return type_ != "table" or is_our_table(name)


def drop_version_table_at_base(*_: Any, **applied: Any) -> None:
    """Leave nothing of ours behind: Alembic itself keeps the empty table."""
    if not applied["heads"]:
        migration: MigrationContext = applied["ctx"]
        migration.impl.drop_table(Table(VERSION_TABLE, MetaData(), schema=migration.version_table_schema))


def configure(**options: Any) -> None:
    context.configure(
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=include_name,
        on_version_apply=drop_version_table_at_base,
        # SQLite can, once the driver is kept from beginning on its own.
        transactional_ddl=True,
        **options,
    )


def database_url() -> URL:
    configured = context.config.get_alembic_option("sqlalchemy.url")
    return synchronous_url(str(configured) if configured else default_url())


def print_sql() -> None:
    name = context.config.attributes.get("dialect") or database_url().get_backend_name()
    configure(dialect_name=name, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        if name == "postgresql":
            context.execute(advisory_lock())
        context.run_migrations()


def migrate(connection: Connection) -> None:
    with alone(connection):
        # Configured inside the transaction, Alembic leaves beginning and committing to us.
        configure(connection=connection, version_table_schema=default_schema(connection))
        context.run_migrations()


if context.is_offline_mode():
    print_sql()
elif (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    engine = create_engine(database_url(), poolclass=NullPool)
    with engine.connect() as opened:
        migrate(opened)
