"""``python -m examples.document_pipeline``; the page is README.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dbos_orm.errors import DBOSError
from examples.document_pipeline.documents import STANDARD_LIBRARY
from examples.document_pipeline.pipeline import run


def main(arguments: Sequence[str]) -> int:
    """Index a folder, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.document_pipeline")
    parser.add_argument("folder", nargs="?", type=Path, default=STANDARD_LIBRARY, help="of Python modules or texts")
    parser.add_argument("--database", metavar="FILE", help="a SQLite file (default: documents.db)")
    given = parser.parse_args(arguments)
    url = os.environ.get("DBOS_DATABASE_URL") or "sqlite:///documents.db"
    if given.database is not None:
        url = f"sqlite:///{given.database}"
    try:
        run(url, given.folder.resolve(), lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
        return 130
    except DBOSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
