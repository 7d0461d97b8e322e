"""``python -m examples.airports``; the page is the docstring of the package."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

import examples.airports
from dbos_orm.errors import DBOSError
from examples.airports import importing, importing_async
from examples.airports.data_set import DataSetChangedError
from examples.airports.terminal import Report


def main(arguments: Sequence[str]) -> int:
    """Import, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.airports",
        description=examples.airports.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--database", metavar="FILE", help="a SQLite file (default: airports.db)")
    parser.add_argument("--async", dest="use_async", action="store_true", help="import with asyncio")
    given = parser.parse_args(arguments)
    if given.database is not None:
        url = f"sqlite:///{given.database}"
    else:
        url = os.environ.get("DBOS_DATABASE_URL") or "sqlite:///airports.db"
    try:
        if given.use_async:
            asyncio.run(importing_async.run(url, Report()))
        else:
            importing.run(url, Report())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
        return 130
    except (DBOSError, DataSetChangedError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
