"""Real child processes for tests: killed, stopped and continued at will, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from types import TracebackType
from typing import Self, TypeVar

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0
INTERVAL = 0.01

T = TypeVar("T")


def eventually(predicate: Callable[[], T], *, timeout: float = PATIENCE, what: str = "") -> T:
    """Ask ``predicate`` until its answer is true, and return that answer.

    Raises:
        AssertionError: it was not true within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        assert time.monotonic() < deadline, _not_in_time(predicate, timeout, what, answer)
        time.sleep(INTERVAL)
    return answer


async def eventually_async(predicate: Callable[[], T], *, timeout: float = PATIENCE, what: str = "") -> T:
    """Do the same as ``eventually`` without blocking the loop between two questions."""
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        assert time.monotonic() < deadline, _not_in_time(predicate, timeout, what, answer)
        await asyncio.sleep(INTERVAL)
    return answer


def _not_in_time(predicate: Callable[[], object], timeout: float, what: str, answer: object) -> str:
    return f"not within {timeout} s: {what or predicate!r}; the last answer was {answer!r}"


class ChildProcess:
    """One child, with the lines of its output as they come."""

    def __init__(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._lines: list[str] = []
        self._read_to = 0
        self._finished = False
        self._changed = threading.Condition()
        self._errors_file = folder / f"{name}.stderr"
        with self._errors_file.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the child has not ended; a stopped one has not."""
        return self._process.poll() is None

    @property
    def lines(self) -> list[str]:
        """Every line of standard output so far."""
        with self._changed:
            return list(self._lines)

    @property
    def errors(self) -> str:
        """Standard error so far."""
        return self._errors_file.read_text(errors="replace")

    def wait_for_line(self, text: str, *, timeout: float = PATIENCE) -> str:
        """Return the next line of standard output that contains ``text``; a line is returned once.

        Raises:
            AssertionError: the child ended, or ``timeout`` seconds passed, without such a line.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                while self._read_to < len(self._lines):
                    line = self._lines[self._read_to]
                    self._read_to += 1
                    if text in line:
                        return line
                in_time = self._changed.wait(deadline - time.monotonic()) if not self._finished else False
                assert in_time, f"no line with {text!r} within {timeout} s\n{self._report()}"

    def send_line(self, text: str) -> None:
        """Write one line to the child's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End the child with SIGKILL, also a stopped one, and reap it."""
        self._process.kill()
        self._close()

    def interrupt(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal that the child may handle."""
        self._process.send_signal(how)

    def stop(self) -> None:
        """Stop every thread of the child (SIGSTOP) and return when they stand still."""
        self._process.send_signal(signal.SIGSTOP)
        # WNOWAIT leaves the child's state to subprocess; WEXITED, since a dead child never stops.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert self.is_running, f"the child had ended\n{self._report()}"

    def cont(self) -> None:
        """Let a stopped child go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, *, timeout: float = PATIENCE) -> int:
        """Wait for the end and return the exit code: negative for a signal.

        Raises:
            AssertionError: the child was still running after ``timeout`` seconds.
        """
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s\n{self._report()}") from None
        self._close()
        return code

    def succeed(self, *, timeout: float = PATIENCE) -> list[str]:
        """Wait for the end, which must be exit code 0, and return all lines of standard output."""
        code = self.wait(timeout=timeout)
        assert code == 0, f"exit code {code}\n{self._report()}"
        return self.lines

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def _close(self) -> None:
        self._process.wait()
        # A grandchild may hold the pipe open; the lines so far are there all the same.
        self._reader.join(1.0)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not (pipe is self._process.stdout and self._reader.is_alive()):
                pipe.close()

    def _report(self) -> str:
        output = "\n".join(self._lines)
        return f"{self.name} (exit code {self._process.poll()})\nstdout:\n{output}\nstderr:\n{self.errors}"


class Processes:
    """Starts children in one folder and, on leaving, kills and reaps those that are left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[ChildProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in self._children:
            child.kill()
            # pytest shows this below a test that failed.
            sys.stdout.write(f"{child._report()}\n")

    def start_script(self, text: str, *arguments: str, environment: Mapping[str, str] | None = None) -> ChildProcess:
        """Run a program given as text, from a file, so that the source of its functions can be read."""
        name = f"child_{len(self._children) + 1}"
        file = self._folder / f"{name}.py"
        file.write_text(dedent(text))
        return self._start(name, [file, *arguments], environment)

    def start_module(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> ChildProcess:
        """Run a module, as ``python -m`` does."""
        name = f"child_{len(self._children) + 1}_{module}"
        return self._start(name, ["-m", module, *arguments], environment)

    def _start(self, name: str, arguments: Sequence[str | Path], environment: Mapping[str, str] | None) -> ChildProcess:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        child = ChildProcess(
            name, [sys.executable, *arguments], {**os.environ, **own, **(environment or {})}, self._folder
        )
        self._children.append(child)
        return child
