"""The environments that the other contenders have to themselves."""

from __future__ import annotations

import shutil
import subprocess
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".benchmarks"


@dataclass(frozen=True)
class Package:
    """A contender on PyPI, and what else its environment has."""

    name: str
    version: str
    extras: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


DBOS = Package("dbos", "3.4.0")
PROCRASTINATE = Package("procrastinate", "3.10.0", ("psycopg[binary,pool]",))
PGQUEUER = Package("pgqueuer", "1.6.0", ("asyncpg", "uvloop"))
# Its schema is not in its own wheel, but in that of its command.
ABSURD = Package("absurd-sdk", "0.5.1", ("absurdctl==0.5.1",))


class NoEnvironmentError(Exception):
    """A contender cannot be had here; the message says why."""


def interpreter_with(package: Package, tell: Callable[[str], object]) -> Path:
    """The Python that has it: made at the first call with venv and pip, kept in ``.benchmarks/``.

    Raises:
        NoEnvironmentError: pip could not install it.
    """
    folder = CACHE / f"{package.name}-{package.version}"
    interpreter = folder / "bin" / "python"
    # Written last: an installation that was interrupted is made anew.
    finished = folder / "finished"
    if finished.exists():
        return interpreter
    tell(f"installing {package} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    installation = subprocess.run(
        [interpreter, "-m", "pip", "install", "--quiet", str(package), *package.extras],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if installation.returncode != 0:
        raise NoEnvironmentError(
            f"{package} could not be installed into {folder} (is PyPI reachable?); "
            f"leave the others out with --without-dbos. pip said:\n{installation.stdout[-1500:]}"
        )
    finished.touch()
    return interpreter
