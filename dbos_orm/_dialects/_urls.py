"""Database URLs as people write them, made into URLs that name an installed driver."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from dbos_orm.errors import ConfigurationError

__all__ = ["DEFAULT_URL", "URL_VARIABLE", "default_url", "normalized_url", "synchronous_url"]

URL_VARIABLE: Final = "DBOS_DATABASE_URL"
DEFAULT_URL: Final = "sqlite:///dbos.sqlite"

_POSTGRESQL_DRIVERS: Final = ("psycopg2", "psycopg")
_EXAMPLES: Final = "postgresql://user@host/database or sqlite:///file.db"
_ASYNC_DRIVERS: Final = {"asyncpg": "postgresql", "psycopg_async": "postgresql", "aiosqlite": "sqlite"}


def default_url() -> URL:
    """The database for who names none: DBOS_DATABASE_URL, else a SQLite file in the working directory."""
    return normalized_url(os.environ.get(URL_VARIABLE) or DEFAULT_URL)


def normalized_url(url: str | URL) -> URL:
    """Make a URL of PostgreSQL or SQLite that names a driver which is installed.

    ``postgresql://`` and ``postgres://`` become psycopg2 (psycopg where only that is installed),
    whatever this version of SQLAlchemy takes them for. A driver that is named is kept.

    Raises:
        ConfigurationError: not a URL, another database, or the driver is not installed. The
            password does not appear in it.
    """
    parsed = _parsed(url)
    backend, _, driver = parsed.drivername.partition("+")
    if backend == "postgres":
        parsed = parsed.set(drivername=parsed.drivername.replace("postgres", "postgresql", 1))
        backend = "postgresql"
    if backend not in {"postgresql", "sqlite"}:
        raise ConfigurationError("url", _shown(parsed), "a database of PostgreSQL or SQLite", f"use {_EXAMPLES}")
    if backend == "postgresql" and not driver:
        parsed = parsed.set(drivername=f"postgresql+{_installed_postgresql_driver(parsed)}")
    _require_driver(parsed)
    return parsed


def synchronous_url(url: str | URL) -> URL:
    """The same database through a driver that blocks, for a program without an event loop.

    Raises:
        ConfigurationError: as ``normalized_url``.
    """
    parsed = _parsed(url)
    backend = _ASYNC_DRIVERS.get(parsed.drivername.partition("+")[2])
    if backend is None:
        return normalized_url(parsed)
    query = dict(parsed.query)
    if "ssl" in query:  # asyncpg's name for what libpq calls sslmode
        query["sslmode"] = query.pop("ssl")
    return normalized_url(parsed.set(drivername=backend, query=query))


def _parsed(url: str | URL) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            "url", _without_credentials(str(url)), "a database URL", f"write it as {_EXAMPLES}"
        ) from error


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _without_credentials(text: str) -> str:
    # What could not be parsed may have the password anywhere before the last "@".
    before, at, after = text.rpartition("@")
    return f"{before.partition('//')[0]}//***@{after}" if at else text


def _installed_postgresql_driver(url: URL) -> str:
    for driver in _POSTGRESQL_DRIVERS:
        if find_spec(driver) is not None:
            return driver
    raise ConfigurationError(
        "url", _shown(url), "an installed driver for PostgreSQL", "run: pip install psycopg2-binary"
    )


def _require_driver(url: URL) -> None:
    try:
        url.get_dialect().import_dbapi()
    except NoSuchModuleError as error:
        raise ConfigurationError(
            "url", _shown(url), f"a driver that SQLAlchemy knows, not {url.drivername!r}", f"use {_EXAMPLES}"
        ) from error
    except ImportError as error:
        missing = error.name or url.get_driver_name()
        raise ConfigurationError(
            "url", _shown(url), f"an installed driver, but {missing!r} is not", f"run: pip install {missing}"
        ) from error
