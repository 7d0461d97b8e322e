"""A contender's process as seen from here: lines that it says, and lines that it is told."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).parents[1]
# Seconds for one run.
PATIENCE = 600.0


class RunFailedError(Exception):
    """A contender ended before it had done its task; the end of what it wrote is in the message."""


class Program:
    """A process that speaks in lines; ``complaints`` is where it writes its errors."""

    def __init__(self, name: str, process: subprocess.Popen[str], complaints: IO[str]) -> None:
        self._name = name
        self._process = process
        self._complaints = complaints

    def hear(self) -> str:
        """The next line that it says, without the end of the line.

        Raises:
            RunFailedError: it ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        return line.removesuffix("\n")

    def tell(self, line: str) -> None:
        """Tell it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def close_input(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def require_alive(self) -> None:
        """Raise the RunFailedError of a process that has ended."""
        if self._process.poll() is not None:
            self._fail()

    def _fail(self) -> NoReturn:
        self._process.wait()
        self._complaints.seek(0)
        raise RunFailedError(f"{self._name} failed:\n{self._complaints.read()[-2000:]}")


@contextmanager
def running(interpreter: Path, module: str, task: str) -> Iterator[Program]:
    """A module run by an interpreter in a new process while the block runs, ten minutes at most.

    At the end of the block its input ends, and the block waits for its end; a block that failed kills it.
    """
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [interpreter, "-m", module, task],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        with process:
            try:
                yield Program(f"{module} {task}", process, complaints)
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
