"""Engines of the library's own, which connect the way the user's engine does."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    AssertionPool,
    AsyncAdaptedQueuePool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
    create_engine,
)
from sqlalchemy.engine import Engine

from dbos_orm._clock import Clock
from dbos_orm._dialects._base import Dialect
from dbos_orm._dialects._postgresql import PostgreSQLDialect
from dbos_orm._dialects._sqlite import SQLiteDialect, require_sqlite_file
from dbos_orm.config import Config
from dbos_orm.errors import ConfigurationError

_DIALECTS: Final[dict[str, type[Dialect]]] = {"postgresql": PostgreSQLDialect, "sqlite": SQLiteDialect}
_POOL_TIMEOUT_SECONDS: Final = 30
_KEPT_OPTIONS: Final = ("schema_translate_map", "logging_token")
"""Execution options of the user's engine that say where its tables are. Others (an isolation level, streaming) are for
the user's transactions: on our connections an isolation level would end autocommit, and nothing would be committed."""
_SHARED_POOLS: Final = (StaticPool, SingletonThreadPool, AssertionPool)


def dialect_of(engine: Engine, clock: Clock, config: Config) -> Dialect:
    """What the library knows about this engine's database.

    Raises:
        ConfigurationError: the database is not supported, or SQLite in memory.
    """
    found = _DIALECTS.get(engine.dialect.name)
    if found is None:
        raise ConfigurationError(
            "url",
            engine.url.render_as_string(),
            f"a database of {sorted(_DIALECTS)}",
            "bind an engine of PostgreSQL or SQLite",
        )
    if found is SQLiteDialect:
        require_sqlite_file(engine.url)
    return found(engine, clock, config)


def own_engine(engine: Engine, dialect: Dialect, *, size: int) -> Engine:
    """Make an engine with a pool of ``size`` connections, opened as ``engine`` opens its own.

    Creators, connect arguments and the listeners of the user's pool (tokens, TLS, session settings) take part;
    nothing is added to the user's engine. The connections are in autocommit: who needs a transaction
    begins and ends it in SQL, so that a single statement costs one round trip. An asynchronous
    driver is used through the same synchronous interface, in a greenlet of the service loop.

    Raises:
        ConfigurationError: the engine's pool shares one connection among its callers.
    """
    if isinstance(engine.pool, _SHARED_POOLS):
        raise ConfigurationError(
            "engine",
            engine.url.render_as_string(),
            f"a pool that gives every caller a connection of its own, not {type(engine.pool).__name__}",
            "leave poolclass out",
        )
    template = engine.pool.recreate()

    def connect() -> Any:
        fairy = template.connect()
        fairy.detach()
        return fairy.dbapi_connection

    options: dict[str, Any] = {
        "creator": connect,
        "isolation_level": "AUTOCOMMIT",
        "pool_size": size,
        "max_overflow": 0,
        "pool_timeout": _POOL_TIMEOUT_SECONDS,
        "poolclass": AsyncAdaptedQueuePool if engine.dialect.is_async else QueuePool,
    }
    if engine.dialect.is_async:
        options["_is_async"] = True
    own = create_engine(engine.url, **options)
    dialect.prepare_own_engine(own)
    given = engine.get_execution_options()
    return own.execution_options(**{name: given[name] for name in _KEPT_OPTIONS if name in given})
