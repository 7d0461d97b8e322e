"""Engines as a user of dbos_orm makes them, for the tests and for the processes that they start."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry


def engine_for(url: URL | str, **options: Any) -> Engine:
    """An engine for ``url``; on SQLite with the settings that dbos_orm asks for."""
    url = make_url(url)
    engine = create_engine(url, **options)
    if url.get_backend_name() == "sqlite":
        _prepare_sqlite(engine)
    return engine


def async_engine_for(url: URL | str, **options: Any) -> AsyncEngine:
    """An asyncio engine for ``url``; on SQLite with the settings that dbos_orm asks for."""
    url = make_url(url)
    engine = create_async_engine(url, **options)
    if url.get_backend_name() == "sqlite":
        _prepare_sqlite(engine.sync_engine)
    return engine


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for setting in (
            "busy_timeout = 30000",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            cursor.execute(f"PRAGMA {setting}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
