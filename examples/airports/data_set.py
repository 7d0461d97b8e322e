"""The data set of the package airportsdata, in numbered batches that are the same in every process."""

from __future__ import annotations

from functools import cache
from itertools import islice

import airportsdata

from examples.airports.models import Airport, Country, Subdivision

VERSION = airportsdata.__version__
BATCH_SIZE = 500


class DataSetChangedError(Exception):
    """An import that was begun with one version of the data set cannot go on with another."""

    def __init__(self, wanted: str, installed: str) -> None:
        super().__init__(
            f"airportsdata {installed!r} is installed, but this import was begun with {wanted!r}; "
            "the new version has an import of its own"
        )


def airport_count(version: str) -> int:
    """How many airports there are."""
    return len(_rows(version))


def batch_count(version: str) -> int:
    """How many batches there are; the last one may be smaller."""
    return -(-airport_count(version) // BATCH_SIZE)


def countries(version: str) -> list[Country]:
    """Every country that has an airport."""
    return [Country(code=code) for code in sorted({row["country"] for row in _rows(version)})]


def subdivisions(version: str) -> list[Subdivision]:
    """Every subdivision that has an airport."""
    found = {(row["country"], row["subd"]) for row in _rows(version) if row["subd"]}
    return [Subdivision(country_code=code, name=name) for code, name in sorted(found)]


def batch(version: str, number: int) -> list[Airport]:
    """The airports of one batch, counted from 1."""
    rows = islice(_rows(version), (number - 1) * BATCH_SIZE, number * BATCH_SIZE)
    return [
        Airport(
            icao=row["icao"],
            iata=row["iata"] or None,
            local_code=row["lid"] or None,
            name=row["name"],
            city=row["city"] or None,
            country_code=row["country"],
            subdivision_name=row["subd"] or None,
            elevation_feet=row["elevation"],
            latitude=row["lat"],
            longitude=row["lon"],
            time_zone=row["tz"] or None,
        )
        for row in rows
    ]


@cache
def _rows(version: str) -> list[airportsdata.Airport]:
    if version != VERSION:
        raise DataSetChangedError(version, VERSION)
    return list(airportsdata.load().values())
