"""``python -m examples.scheduled_report``; README.md beside this file is the page."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dbos_orm.errors import DBOSError
from examples.scheduled_report import reporting


def main(arguments: Sequence[str]) -> int:
    """Make the reports of the last hours, and go on each hour if asked to; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.scheduled_report", description=reporting.__doc__)
    parser.add_argument("--database", metavar="FILE", default="reports.db", help="a SQLite file (default: %(default)s)")
    parser.add_argument("--folder", metavar="FOLDER", type=Path, default=Path("reports"), help="where the reports go")
    parser.add_argument("--hours", type=int, default=24, help="how far back to report (default: %(default)s)")
    parser.add_argument("--watch", action="store_true", help="go on every hour, until Ctrl-C")
    given = parser.parse_args(arguments)
    url = os.environ.get("DBOS_DATABASE_URL") or f"sqlite:///{given.database}"
    reporting.folder = given.folder
    try:
        with suppress(KeyboardInterrupt):
            run(url, given.hours, watch=given.watch)
    except DBOSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run(url: str, hours: int, *, watch: bool) -> None:
    """Launch, report on the hours before this one that have no report yet, and print each."""
    dbos = reporting.dbos
    dbos.bind(url)
    with dbos.launch(migrate=True):
        reporting.create_tables()
        now = datetime.now(UTC)
        for handle in dbos.schedules.backfill("hourly", now - timedelta(hours=hours), now):
            print(handle.result(), "" if handle.created else "(was made before)", flush=True)
        while watch:
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
