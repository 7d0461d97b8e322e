"""Engines as a user of dbos_orm makes them, for the tests and for the processes that they start."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dbos_orm._dialects._sqlite import prepare_sqlite_connections, sqlite_engine


def engine_for(url: URL | str, **options: Any) -> Engine:
    """An engine for ``url``; on SQLite with the settings that dbos_orm asks for."""
    url = make_url(url)
    if url.get_backend_name() == "sqlite":
        return sqlite_engine(url, **options)
    return create_engine(url, **options)


def async_engine_for(url: URL | str, **options: Any) -> AsyncEngine:
    """An asyncio engine for ``url``; on SQLite with the settings that dbos_orm asks for."""
    url = make_url(url)
    engine = create_async_engine(url, **options)
    if url.get_backend_name() == "sqlite":
        prepare_sqlite_connections(engine.sync_engine)
    return engine


def async_url(url: URL | str) -> URL | str:
    """The URL of the same database with an asynchronous driver."""
    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    for sync, asynchronous in (
        ("postgresql+psycopg2:", "postgresql+asyncpg:"),
        ("sqlite:", "sqlite+aiosqlite:"),
    ):
        text = text.replace(sync, asynchronous, 1)
    return text
