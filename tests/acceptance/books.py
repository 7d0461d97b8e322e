"""An application that keeps books of itself: what its steps did, and how often.

A transactional step writes a row with a unique key and adds to a counter; a plain step writes a line to
the outside world, a file. The same workflows exist in both colours (``keepers``), and ``Keeper`` hides which.
"""

from __future__ import annotations

import abc
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from sqlalchemy import URL, UniqueConstraint, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbos_orm import DBOS, AsyncDBOS, Config, WorkflowState

Colour = Literal["sync", "async"]
COLOURS: tuple[Colour, ...] = ("sync", "async")

T = TypeVar("T")

QUICK = Config(tick=0.05)
"""The usual lease, which no test waits for: who is dead must be proved."""
SHORT = Config(lease=0.8, heartbeat=0.2, tick=0.05)
"""A lease that a test can outlast."""


class Base(DeclarativeBase):
    """The books' own tables."""


class Posting(Base):
    """What a transactional step did; doing it twice is an error, doing it not at all a gap."""

    __tablename__ = "posting"
    __table_args__ = (UniqueConstraint("workflow_id", "step"),)

    posting_id: Mapped[int] = mapped_column(primary_key=True)
    workflow_id: Mapped[str]
    step: Mapped[str]


class Account(Base):
    """A counter, which shows an update that was lost or done twice."""

    __tablename__ = "account"

    name: Mapped[str] = mapped_column(primary_key=True)
    postings: Mapped[int] = mapped_column(default=0)


class Note(Base):
    """A row that no other transaction waits for."""

    __tablename__ = "note"

    note_id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class World:
    """What the plain steps did to the world outside, which no rollback undoes: the lines of a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def visit(self, workflow_id: str, step: str) -> str:
        """What a step does; it gives what no other visit gives."""
        self._write(f"{workflow_id} {step}")
        return secrets.token_hex(4)

    def acknowledge(self, workflow_id: str, step: str, token: str) -> None:
        """What a workflow does with the value of a step: from now on the step must have this value."""
        self._write(f"{workflow_id} {step}={token}")

    @property
    def visits(self) -> Counter[str]:
        """How often each ``workflow_id step`` came by."""
        return Counter(line for line in self._lines() if "=" not in line)

    @property
    def acknowledged(self) -> set[tuple[str, str]]:
        """Every (``workflow_id step``, value) that a workflow has seen."""
        found = (line.partition("=") for line in self._lines() if "=" in line)
        return {(step, token) for step, _, token in found}

    def _write(self, line: str) -> None:
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)

    def _lines(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []


def nowhere(place: str) -> None:
    """The gate that is always open."""


class Gate:
    """Holds whoever passes until it is opened, and counts them."""

    def __init__(self) -> None:
        self.passing = threading.Semaphore(0)
        self.count = 0
        self._is_open = threading.Event()

    def __call__(self, place: str) -> None:
        self.count += 1
        self.passing.release()
        self._is_open.wait(20)

    def wait_for_one(self) -> None:
        assert self.passing.acquire(timeout=20)

    def open(self) -> None:
        self._is_open.set()


def open_account(session: Session, name: str) -> None:
    """Make sure of an account, on a session of the caller's."""
    if session.get(Account, name) is None:
        session.add(Account(name=name, postings=0))
        session.flush()


def post(session: Session, workflow_id: str, step: str, account: str) -> int:
    """Post once, and give the number of postings of the account so far."""
    open_account(session, account)
    session.add(Posting(workflow_id=workflow_id, step=step))
    session.execute(update(Account).where(Account.name == account).values(postings=Account.postings + 1))
    return session.scalars(select(Account.postings).where(Account.name == account)).one()


KEPT_STEPS = 5
"""How often a ``keep`` posts, with its children."""
BRIEF_STEPS = 3
"""How often a ``brief`` posts."""


class Keeper(abc.ABC):
    """One process's books: launched for as long as it is entered, and driven by calls that block.

    ``at`` is called where a test may want to hold a run; it blocks the run and nothing else.
    """

    def __init__(self, url: URL | str, world: World, at: Callable[[str], None] = nowhere) -> None:
        self._url = url
        self._world = world
        self._at = at

    application: DBOS | AsyncDBOS

    def __enter__(self) -> Self:
        self.bind()
        self.launch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def bind(self) -> None: ...

    @abc.abstractmethod
    def launch(self) -> None: ...

    @abc.abstractmethod
    def close(self) -> None: ...

    @property
    @abc.abstractmethod
    def driver(self) -> Any:
        """What performs the effects of the workflows."""

    @property
    def executor_id(self) -> str:
        """Under which name this process runs now."""
        launch = self.application._runtime.launch
        assert launch is not None
        return launch.executor_id

    @property
    def runs(self) -> int:
        """How many workflows this process executes now."""
        return len(self.application._runtime.bound("runs").runs)

    @abc.abstractmethod
    def call(self, workflow: str, workflow_id: str, *arguments: Any) -> Any:
        """Run a workflow here, or await the one that has this ID, and give its result."""

    @abc.abstractmethod
    def start(self, workflow: str, workflow_id: str, *arguments: Any) -> None:
        """Start a workflow in the background; when this returns it is stored."""

    @abc.abstractmethod
    def result(self, workflow_id: str, *, timeout: float = 20) -> Any:
        """Await a workflow."""

    @abc.abstractmethod
    def status(self, workflow_id: str) -> WorkflowState: ...

    @abc.abstractmethod
    def cancel(self, workflow_id: str) -> None: ...
