"""The application's own table, the same for every contender."""

from __future__ import annotations

from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The application's tables."""


class Item(Base):
    """What a transactional step inserts."""

    __tablename__ = "benchmark_item"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


def create_tables(url: str) -> None:
    """Create the application's table where it is missing."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    engine.dispose()


def with_driver(url: str, postgresql: str, sqlite: str = "sqlite") -> str:
    """The URL with the driver for its database."""
    parsed = make_url(url)
    driver = sqlite if parsed.get_backend_name() == "sqlite" else postgresql
    return parsed.set(drivername=driver).render_as_string(hide_password=False)
