"""Countries, their subdivisions, and the airports in them."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class Country(Base):
    """A country by its ISO 3166-1 code, or XK."""

    __tablename__ = "country"
    __table_args__ = (CheckConstraint("length(code) = 2", name="code"),)

    code: Mapped[str] = mapped_column(String(2), primary_key=True)

    airports: Mapped[list[Airport]] = relationship(back_populates="country")
    subdivisions: Mapped[list[Subdivision]] = relationship(back_populates="country")


class Subdivision(Base):
    """A state, province or region; its name is unique within its country."""

    __tablename__ = "subdivision"
    __table_args__ = (CheckConstraint("name <> ''", name="name"),)

    country_code: Mapped[str] = mapped_column(ForeignKey(Country.code), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)

    country: Mapped[Country] = relationship(back_populates="subdivisions")


class Airport(Base):
    """An airport or a landing strip. What the data set leaves empty is None."""

    __tablename__ = "airport"
    __table_args__ = (
        # An airport's subdivision is one of its own country; without one only the country is checked.
        ForeignKeyConstraint(["country_code", "subdivision_name"], [Subdivision.country_code, Subdivision.name]),
        CheckConstraint("length(icao) = 4", name="icao"),
        CheckConstraint("length(iata) = 3", name="iata"),
        CheckConstraint("latitude BETWEEN -90 AND 90", name="latitude"),
        CheckConstraint("longitude BETWEEN -180 AND 180", name="longitude"),
    )

    icao: Mapped[str] = mapped_column(String(4), primary_key=True)
    """The ICAO location indicator, or a national code in its place."""
    iata: Mapped[str | None] = mapped_column(String(3), unique=True)
    local_code: Mapped[str | None] = mapped_column(String(7), unique=True)
    """The code of the Federal Aviation Administration, in the US."""
    name: Mapped[str]
    city: Mapped[str | None]
    country_code: Mapped[str] = mapped_column(ForeignKey(Country.code), index=True)
    subdivision_name: Mapped[str | None]
    elevation_feet: Mapped[float]
    latitude: Mapped[float]
    longitude: Mapped[float]
    time_zone: Mapped[str | None]
    """A name of the IANA database; None in Antarctica."""

    country: Mapped[Country] = relationship(back_populates="airports")
    subdivision: Mapped[Subdivision | None] = relationship(viewonly=True)
