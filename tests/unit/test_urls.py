"""What a person writes as a database URL becomes one that names an installed driver."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import pytest
from sqlalchemy import make_url

from dbos_orm._dialects import _urls
from dbos_orm._dialects._urls import URL_VARIABLE, default_url, normalized_url, synchronous_url
from dbos_orm.errors import ConfigurationError


def install_only(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    def find_spec(name: str) -> ModuleSpec | None:
        return importlib.util.find_spec(name) if name in installed else None

    monkeypatch.setattr(_urls, "find_spec", find_spec)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_postgresql_without_a_driver_gets_the_one_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, scheme: str, driver: str
) -> None:
    install_only(monkeypatch, driver)
    assert str(normalized_url(f"{scheme}://host/shop")) == f"postgresql+{driver}://host/shop"


def test_psycopg2_comes_first() -> None:
    assert normalized_url("postgresql://host/shop").drivername == "postgresql+psycopg2"


def test_without_any_driver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    install_only(monkeypatch)
    with pytest.raises(ConfigurationError, match="pip install psycopg2-binary"):
        normalized_url("postgresql://host/shop")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://host/shop",
        "postgresql+psycopg://host/shop?sslmode=require",
        "postgresql+asyncpg://host/shop",
        "sqlite:///shop.db",
        "sqlite+aiosqlite:///shop.db",
    ],
)
def test_a_url_that_names_its_driver_is_kept(url: str) -> None:
    assert str(normalized_url(url)) == url


def test_a_named_driver_is_kept_behind_the_old_scheme() -> None:
    assert normalized_url("postgres+psycopg://host/shop").drivername == "postgresql+psycopg"


def test_a_url_object_keeps_its_password() -> None:
    assert normalized_url(make_url("postgres://ada:secret@host/shop")).password == "secret"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql+asyncpg://host/shop", "postgresql+psycopg2://host/shop"),
        ("postgresql+asyncpg://host/shop?ssl=require", "postgresql+psycopg2://host/shop?sslmode=require"),
        ("postgresql+psycopg_async://host/shop", "postgresql+psycopg2://host/shop"),
        ("sqlite+aiosqlite:///shop.db", "sqlite:///shop.db"),
        ("postgres://host/shop", "postgresql+psycopg2://host/shop"),
        ("postgresql+psycopg://host/shop", "postgresql+psycopg://host/shop"),
    ],
)
def test_a_url_for_asyncio_has_a_synchronous_counterpart(given: str, expected: str) -> None:
    assert str(synchronous_url(given)) == expected


@pytest.mark.parametrize(
    ("url", "expectation"),
    [
        ("", "a database URL"),
        ("shop.db", "a database URL"),
        ("postgresql://host:port/shop", "a database URL"),
        ("mysql://ada:secret@host/shop", "PostgreSQL or SQLite"),
        ("postgresql+nosuch://ada:secret@host/shop", "postgresql\\+nosuch"),
        ("postgresql+pg8000://ada:secret@host/shop", "pip install pg8000"),
        ("postgresql://ada:se/cr@et:secret@host:port/shop", "a database URL"),
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str, expectation: str) -> None:
    with pytest.raises(ConfigurationError, match=expectation) as refused:
        normalized_url(url)
    assert refused.value.field == "url"
    for part in ("secret", "se/cr", "cr@et"):
        assert part not in str(refused.value)


def test_the_environment_names_the_default_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "postgres://host/shop")
    assert str(default_url()) == "postgresql+psycopg2://host/shop"


@pytest.mark.parametrize("value", [None, ""])
def test_without_an_environment_the_default_is_a_file_here(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(URL_VARIABLE, value)
    assert str(default_url()) == "sqlite:///dbos.sqlite"
