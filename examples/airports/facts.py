"""What the tables tell, once they are full."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from examples.airports.models import Airport, Country


class Facts(NamedTuple):
    """A few true sentences about the airports of the world."""

    airports: int
    countries: int
    with_iata_code: int
    busiest: list[tuple[str, int]]
    """The five countries with the most airports."""
    highest: str
    northernmost: str


def find_facts(session: Session) -> Facts:
    """Ask the tables."""
    airports = func.count(Airport.icao)
    per_country = (
        select(Country.code, airports)
        .join(Country.airports)
        .group_by(Country.code)
        .order_by(airports.desc(), Country.code)
    )
    one = select(Airport).options(joinedload(Airport.country)).limit(1)
    highest = session.scalars(one.order_by(Airport.elevation_feet.desc(), Airport.icao)).one()
    northernmost = session.scalars(one.order_by(Airport.latitude.desc(), Airport.icao)).one()
    return Facts(
        airports=session.scalars(select(airports)).one(),
        countries=session.scalars(select(func.count(Country.code))).one(),
        with_iata_code=session.scalars(select(func.count(Airport.iata))).one(),
        busiest=[(code, count) for code, count in session.execute(per_country.limit(5))],
        highest=f"{_place(highest)}, {highest.elevation_feet:,.0f} feet above the sea",
        northernmost=f"{_place(northernmost)}, at {northernmost.latitude:.1f} degrees north",
    )


def _place(airport: Airport) -> str:
    return ", ".join(filter(None, [airport.name, airport.city, airport.country.code]))
