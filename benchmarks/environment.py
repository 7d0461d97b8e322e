"""The environment that DBOS has to itself."""

from __future__ import annotations

import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

DBOS_VERSION = "3.4.0"
CACHE = Path(__file__).parents[1] / ".benchmarks"


class NoEnvironmentError(Exception):
    """DBOS cannot be had here; the message says why."""


def dbos_interpreter(tell: Callable[[str], object]) -> Path:
    """The Python that has DBOS: made at the first call with venv and pip, kept in ``.benchmarks/``.

    Raises:
        NoEnvironmentError: pip could not install it.
    """
    folder = CACHE / f"dbos-{DBOS_VERSION}"
    interpreter = folder / "bin" / "python"
    # Written last: an installation that was interrupted is made anew.
    finished = folder / "finished"
    if finished.exists():
        return interpreter
    tell(f"installing dbos=={DBOS_VERSION} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    installation = subprocess.run(
        [interpreter, "-m", "pip", "install", "--quiet", f"dbos=={DBOS_VERSION}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if installation.returncode != 0:
        raise NoEnvironmentError(
            f"dbos=={DBOS_VERSION} could not be installed into {folder} (is PyPI reachable?); "
            f"leave it out with --without-dbos. pip said:\n{installation.stdout[-1500:]}"
        )
    finished.touch()
    return interpreter
