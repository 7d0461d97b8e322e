"""What users bind an application to, made into an engine and a maker of sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import scoped_session, sessionmaker

from dbos_orm._context import logger
from dbos_orm._dialects import prepare_sqlite_connections, require_sqlite_file, sqlite_engine
from dbos_orm._dialects._urls import DEFAULT_URL, URL_VARIABLE, default_url, normalized_url
from dbos_orm._surroundings import NOTHING, Surroundings
from dbos_orm.errors import ConfigurationError

SyncBind: TypeAlias = Engine | Connection | sessionmaker[Any] | scoped_session[Any] | URL | str
AsyncBind: TypeAlias = AsyncEngine | AsyncConnection | async_sessionmaker[Any] | async_scoped_session[Any] | URL | str


class ResolvedBind(NamedTuple):
    """``factory`` makes the sessions of transactions. ``is_ours``: the engine is to be disposed with the binding.
    ``is_default``: nobody chose this database, so it may be migrated without being asked. ``registry`` is the scoped
    session that was given, if one was."""

    engine: Engine
    factory: Callable[..., Any]
    is_ours: bool = False
    is_default: bool = False
    registry: scoped_session[Any] | async_scoped_session[Any] | None = None
    connection: Connection | AsyncConnection | None = None


def resolve_sync(bind: SyncBind | None, surroundings: Surroundings = NOTHING) -> ResolvedBind:
    """The engine behind a bind; without one DBOS_DATABASE_URL, or a SQLite file in the working directory.

    Raises:
        ConfigurationError: it cannot be bound to, and why.
    """
    if bind is None or isinstance(bind, (str, URL)):
        url = _default() if bind is None else normalized_url(bind)
        engine = sqlite_engine(url) if url.get_backend_name() == "sqlite" else create_engine(url)
        return ResolvedBind(engine, sessionmaker(engine), True, bind is None and _is_default(url))
    if isinstance(bind, Connection):
        return _checked(bind.engine, sessionmaker(bind))._replace(connection=bind)
    if isinstance(bind, Engine):
        return _checked(bind, sessionmaker(bind))
    if isinstance(bind, (sessionmaker, scoped_session)):
        factory = bind.session_factory if isinstance(bind, scoped_session) else bind
        found: Any = getattr(factory, "kw", {}).get("bind")
        if not isinstance(found, Engine):
            found = _default_engine(bind, factory, surroundings, "sessionmaker(engine)")
        return _checked(found, factory)._replace(registry=bind if isinstance(bind, scoped_session) else None)
    raise ConfigurationError(
        "bind",
        bind,
        "an Engine, a sessionmaker, a scoped_session, a Connection or a URL",
        "use AsyncDBOS for an AsyncEngine",
    )


def resolve_async(bind: AsyncBind | None, surroundings: Surroundings = NOTHING) -> ResolvedBind:
    """``resolve_sync`` for asynchronous engines; a URL gets an asynchronous driver."""
    if bind is None or isinstance(bind, (str, URL)):
        url = _with_async_driver(_default() if bind is None else bind)
        if url.get_backend_name() == "sqlite":
            require_sqlite_file(url)
        engine = create_async_engine(url)
        if url.get_backend_name() == "sqlite":
            prepare_sqlite_connections(engine.sync_engine)
        return ResolvedBind(engine.sync_engine, async_sessionmaker(engine), True, bind is None and _is_default(url))
    if isinstance(bind, AsyncConnection):
        return _checked(_begun(bind).engine, async_sessionmaker(bind))._replace(connection=bind)
    if isinstance(bind, AsyncEngine):
        return _checked(bind.sync_engine, async_sessionmaker(bind))
    if isinstance(bind, (async_sessionmaker, async_scoped_session)):
        factory: Any = bind.session_factory if isinstance(bind, async_scoped_session) else bind
        found = getattr(factory, "kw", {}).get("bind")
        inner = found.sync_engine if isinstance(found, AsyncEngine) else None
        if inner is None:
            inner = _default_engine(bind, factory, surroundings, "async_sessionmaker(engine)")
        registry = bind if isinstance(bind, async_scoped_session) else None
        return _checked(inner, factory)._replace(registry=registry)
    raise ConfigurationError(
        "bind",
        bind,
        "an AsyncEngine, an async_sessionmaker, an async_scoped_session, an AsyncConnection or a URL",
        "use DBOS for an Engine",
    )


def async_sqlite_engine(url: str | URL, **options: Any) -> AsyncEngine:
    """``sqlite_engine`` for aiosqlite: an ``AsyncEngine`` for a file, with the settings that durability needs.

    Raises:
        ConfigurationError: the URL is of another database, or of a database in memory.
    """
    parsed = _with_async_driver(url)
    if parsed.get_backend_name() != "sqlite":
        raise ConfigurationError("url", str(url), "a SQLite URL", "use create_async_engine for other databases")
    require_sqlite_file(parsed)
    engine = create_async_engine(parsed, **options)
    prepare_sqlite_connections(engine.sync_engine)
    return engine


def _default() -> URL:
    url = default_url()
    logger.info("no database was given: using %s (set %s to change it)", url.render_as_string(), URL_VARIABLE)
    return url


def _is_default(url: URL) -> bool:
    return url.database == normalized_url(DEFAULT_URL).database and url.get_backend_name() == "sqlite"


def _with_async_driver(url: str | URL) -> URL:
    parsed = normalized_url(url)
    if parsed.get_dialect().is_async:
        return parsed
    drivers = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
    return normalized_url(parsed.set(drivername=drivers[parsed.get_backend_name()]))


def _begun(connection: AsyncConnection) -> Connection:
    if connection.sync_connection is None:
        raise ConfigurationError("bind", connection, "a connection that is connected", "await it, or use async with")
    return connection.sync_connection


def _checked(engine: Engine, factory: Callable[..., Any]) -> ResolvedBind:
    if engine.dialect.name == "sqlite":
        require_sqlite_file(engine.url)
    return ResolvedBind(engine, factory)


def _default_engine(bind: object, factory: Callable[..., Any], surroundings: Surroundings, example: str) -> Engine:
    """The engine that sessions use which choose theirs for themselves, as those of Flask-SQLAlchemy do."""

    def ask() -> object:
        session = factory()
        return getattr(session, "sync_session", session).get_bind()

    try:
        found = surroundings.call(None, ask)
    except Exception as error:
        problem = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            "bind",
            bind,
            f"a maker of sessions that tells its engine ({type(error).__name__}: {problem})",
            f"make it with {example}; if it needs a framework's context: DBOS(..., run_context=app.app_context)",
        ) from error
    if not isinstance(found, Engine):
        raise ConfigurationError(
            "bind", bind, "a maker of sessions that is bound to an engine", f"make it with {example}"
        )
    return found
