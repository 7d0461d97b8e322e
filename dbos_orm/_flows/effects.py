"""What a flow asks its driver to do.

A flow is a generator: it yields effects and is sent their results as values. It does no I/O, so one flow
serves sync and async drivers, and a test can stop a run before and after every effect. The user's
errors arrive as ``Raised``, never thrown into the flow. What is wrong with the database is the
driver's: it repeats what can be repeated, and otherwise ends the flow.

Nobody changes an effect; it is not frozen because making a frozen object takes four times as long.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from dbos_orm._context import Frame, OpenTransaction, Run
from dbos_orm._dialects import Dialect, Fault
from dbos_orm._outcomes import Raised, Returned
from dbos_orm._registry import RegisteredWorkflow
from dbos_orm._store.entries import Entry, OutputEntry, RunFinish, StepEntry
from dbos_orm._time_limits import TimeLimit
from dbos_orm.errors import DBOSError

T = TypeVar("T")

Outcome: TypeAlias = Returned[Any] | Raised


@dataclass(slots=True, eq=False)
class RunBody:
    """What a run calls: a workflow's function with its arguments."""

    workflow: RegisteredWorkflow
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]


class Effect(Generic[T]):
    """Something to be done outside; ``result = yield from effect`` in a flow."""

    __slots__ = ()

    def __iter__(self) -> Generator[Effect[Any], T, T]:
        return (yield self)


Flow: TypeAlias = Generator[Effect[Any], Any, T]


class WriteResult(enum.Enum):
    """What became of an entry."""

    WRITTEN = "written"
    REFUSED = "refused"
    """The fence or a row in the way refused it, or its status row was locked."""
    STALLED = "stalled"
    """Something of its batch met a conflict or a bad value: it is to be written alone."""


@dataclass(slots=True, eq=False)
class Write(Effect[WriteResult]):
    """Write an entry, sharing a commit with other runs of this process.

    ``run``: whose lease limits retries. ``starts``: the run that the entry begins.
    """

    entry: Entry
    run: Run | None = None
    starts: Run | None = None


@dataclass(slots=True, eq=False)
class WriteAlone(Effect[WriteResult]):
    """Write an entry in a transaction of its own that waits a moment for locks; its errors end the flow."""

    entry: Entry
    run: Run | None = None


@dataclass(slots=True, eq=False)
class Probe(Effect[WriteResult]):
    """Try to write an entry and take it back: REFUSED says that the row is there, even if its writer was in doubt."""

    entry: StepEntry
    run: Run | None = None


@dataclass(slots=True, eq=False)
class Read(Effect[T]):
    """Call a store verb that only reads."""

    verb: Callable[[Connection], T]
    run: Run | None = None


@dataclass(slots=True, eq=False)
class Change(Effect[T]):
    """Call a store verb in a transaction; it must be idempotent, because it is repeated after a lost connection."""

    verb: Callable[[Connection], T]


@dataclass(slots=True, eq=False)
class Invoke(Effect[Outcome]):
    """Call the user's function with ``frame`` as its context (None: outside a run), in a transaction or in none.

    With a ``limit`` it is given up when the time is up: the outcome is then a ``StepTimeoutError``.
    """

    function: Callable[..., Any]
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    frame: Frame | None
    transaction: OpenTransaction | None = None
    limit: TimeLimit | None = None


@dataclass(slots=True, eq=False)
class Execute(Effect[Outcome]):
    """Execute a run that this process owns, in the calling thread or task, to its end."""

    run: Run
    body: RunBody


@dataclass(slots=True, eq=False)
class Spawn(Effect[None]):
    """Execute a run that this process owns in the background."""

    run: Run
    body: RunBody


@dataclass(slots=True, eq=False)
class Announce(Effect[None]):
    """Tell those who may run it that a workflow waits in a queue: a hint, of which nothing depends."""

    queue: str
    name: str


@dataclass(slots=True, eq=False)
class AwaitOpened(Effect[None]):
    """Wait until nothing works any more that the run has opened.

    ``is_abandoned``: it is cancelled, or left out if it has not begun, as it is when the run is ended meanwhile.
    """

    run: Run
    is_abandoned: bool


@dataclass(slots=True, eq=False)
class Pause(Effect[None]):
    """Wait for some seconds; less if the run is ended."""

    seconds: float
    run: Run | None


@dataclass(slots=True, eq=False)
class AwaitCompletion(Effect[RunFinish | None]):
    """Wait until a workflow may have ended; gives its end if this process has recorded that meanwhile.

    ``local_seconds`` at most if it runs in this process, and ``remote_seconds`` if it does not; its end here wakes the
    waiter in any case. Ends early if ``run`` is ended.
    """

    workflow_id: str
    local_seconds: float
    remote_seconds: float
    run: Run | None


class Source(Protocol):
    """Where sessions come from, as far as a flow asks. ``is_own``: from the database that the workflows are in."""

    dialect: Dialect

    @property
    def is_own(self) -> bool: ...
    @property
    def url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Why there is no source of sessions: for now, or (REJECTED) until somebody does something about it."""

    error: DBOSError
    fault: Fault


Maker: TypeAlias = sessionmaker[Any] | async_sessionmaker[Any]


@dataclass(slots=True, eq=False)
class Reach(Effect[Source | Unreachable]):
    """Find out which database the sessions of a maker reach, and whether transactional steps can work there."""

    maker: Maker


@dataclass(slots=True, eq=False)
class Ask(Effect[Outcome]):
    """Call a store verb in a transaction of its own on the database of a source, once; the value is its answer."""

    source: Source
    verb: Callable[[Connection], Any]


@dataclass(slots=True, eq=False)
class OpenSession(Effect[Outcome]):
    """Open and begin a session of ``source`` for ``name``; the value is the ``OpenTransaction``."""

    source: Source
    name: str
    isolation_level: str | None = None
    statement_timeout: timedelta | None = None


@dataclass(slots=True, eq=False)
class Flush(Effect[Outcome]):
    """Send the session's pending changes to the database."""

    transaction: OpenTransaction


@dataclass(slots=True, eq=False)
class RecordIn(Effect[Outcome]):
    """Write an entry in the session's own transaction; the value is a ``WriteResult``."""

    transaction: OpenTransaction
    entry: StepEntry | OutputEntry


@dataclass(slots=True, eq=False)
class Commit(Effect[Outcome]):
    """Commit the session and close it."""

    transaction: OpenTransaction


@dataclass(slots=True, eq=False)
class Rollback(Effect[None]):
    """Roll the session back and close it; trouble in doing so is of no interest."""

    transaction: OpenTransaction
