"""What is running here: the run, its history, and the place in it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import uuid
from asyncio import _get_running_loop
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn

from dbos_orm._clock import steady_seconds
from dbos_orm._time_limits import TimeLimit
from dbos_orm.errors import (
    ForkedProcessError,
    NonDeterministicError,
    NotInWorkflowError,
    OwnershipLost,
    StepOutsideScopeError,
    WorkflowCancelled,
)

logger = logging.getLogger("dbos_orm")

_ending: Final = threading.Lock()
"""Held for the moment in which a run is ended: a lock for each run would be made at every start."""


class StepKey(NamedTuple):
    """The place of a step in a history: ``step_id`` counts from 1 within ``scope`` ("" is the root)."""

    scope: str
    step_id: int

    @property
    def path(self) -> str:
        """The place as people read it: ``3``, or ``3.2`` for the second step of scope 3."""
        return f"{self.scope}.{self.step_id}" if self.scope else str(self.step_id)


class RecordedStep(NamedTuple):
    """A step as the history holds it; payloads are still encoded.

    ``digest`` tells its arguments from others, where it was recorded.
    ``remaining`` is, for a step that waits, how many seconds were left when the history was loaded (at
    ``loaded_at`` of the monotonic clock).
    """

    name: str
    kind: str
    output: str | None
    error: str | None
    serializer: str
    child_id: str | None
    write_id: int
    owner_token: str
    digest: str | None = None
    remaining: float | None = None
    loaded_at: float = 0.0


class RecordedAttempt(NamedTuple):
    """A failed attempt of a step; ``attempt`` counts from 1, ``remaining`` seconds until the next."""

    attempt: int
    error: str
    serializer: str
    remaining: float
    loaded_at: float


class Scope:
    """Numbers the steps of one line of control, in the order in which they are called.

    ``home`` is its task or thread; None until that is known, which is then the first that asks.
    """

    __slots__ = ("drawn", "home", "path")

    def __init__(self, path: str, home: object = None) -> None:
        self.path = path
        self.home = home
        self.drawn = 0

    def draw(self) -> StepKey:
        self.drawn += 1
        return StepKey(self.path, self.drawn)


class Launch:
    """One launch of an application in this process: its name in the database, and how long its lease holds.

    ``owner`` is the application, which may be launched again: a run that a former launch left behind is
    still its run, and ended. ``lease_ends`` is on the steady clock, counted from when the last good
    renewal was sent. A process that was declared dead and lives goes on under another ``executor_id``,
    without the runs it had. ``is_inline``: nothing runs in the background, but where it is waited for.
    """

    __slots__ = ("executor_id", "is_forked", "is_inline", "is_over", "lease_ends", "owner", "pid")

    def __init__(self, executor_id: str, *, lease_ends: float, owner: object = None, is_inline: bool = False) -> None:
        self.owner = owner
        self.is_inline = is_inline
        self.executor_id = executor_id
        self.lease_ends = lease_ends
        self.is_over = False
        self.is_forked = False  # noticed by a fork handler: asking for the PID at every step would cost more
        self.pid = os.getpid()

    @property
    def is_valid(self) -> bool:
        """Whether this process may still act as the owner of what it owns."""
        return not self.is_over and steady_seconds() < self.lease_ends


@dataclass(slots=True, eq=False)
class Run:
    """One execution of one workflow by this process.

    ``stop`` is what the next durable operation raises instead of doing anything: once it is set the
    run records nothing more. ``failure`` is why, where that is this process's trouble and not the
    workflow's. ``history`` is None on a fresh run, which has nothing to look up; ``is_recovered`` says that it is to be
    loaded, and ``is_continued`` that another owner may have run it before, whether or not that left a history.
    ``expires`` is the deadline on the steady clock. ``outer`` is the run whose direct call this is. ``interrupts`` wake
    what waits in this run. ``reads_deadline``: the database has computed the deadline, by its own clock. ``opened``,
    in the order in which they were opened, are the tasks or submitted steps that still work for it. ``finish`` is the
    ``RunFinish`` that was recorded: those who wait for it here need not read it.

    Several threads or tasks may work for one run; what they change here is changed atomically.
    """

    workflow_id: str
    name: str
    owner_token: str
    launch: Launch
    is_async: bool
    generation: str
    outer: Run | None = None
    parent_id: str | None = None
    deadline: datetime | None = None
    expires: float | None = None
    history: Mapping[StepKey, RecordedStep] | None = None
    attempts: Mapping[StepKey, list[RecordedAttempt]] | None = None
    stop: BaseException | None = None
    failure: Exception | None = None
    reads_deadline: bool = False
    is_timed_out: bool = False
    is_recovered: bool = False
    is_continued: bool = False
    interrupts: set[Callable[[], None]] = field(default_factory=set)
    opened: dict[Any, None] = field(default_factory=dict)
    finish: Any = None
    randoms: dict[str, random.Random] = field(default_factory=dict)

    def end_with(self, stop: BaseException) -> None:
        """Make the next durable operation raise ``stop``, and wake the run if it waits; the first one counts."""
        with _ending:
            is_first = self.stop is None
            if is_first:
                self.stop = stop
        if is_first:
            for interrupt in self.interrupts.copy():
                interrupt()

    def stop_here(self, failure: Exception) -> NoReturn:
        """End the run in this process for a trouble that is no outcome of the workflow: it is continued later."""
        self.failure = failure
        self.end_with(OwnershipLost(self.workflow_id))
        assert self.stop is not None
        raise self.stop from failure

    def limit(self, deadline: datetime | None, remaining: float | None) -> None:
        """Set the deadline, with the seconds that are left until it by the clock of the database."""
        self.deadline = deadline
        self.expires = None if remaining is None else steady_seconds() + remaining

    def expire_if_due(self) -> None:
        """End the run if its deadline has passed."""
        if self.expires is not None and self.stop is None and steady_seconds() >= self.expires:
            self.is_timed_out = True
            self.end_with(WorkflowCancelled(self.workflow_id))

    def until_deadline(self, seconds: float) -> float:
        """The given seconds, or those that are left until the deadline if that is sooner; zero when it has passed."""
        return seconds if self.expires is None else max(0.0, min(seconds, self.expires - steady_seconds()))

    def require_live(self, operation: str) -> None:
        """Raise what ended this run, if anything did: it is asked before every durable operation.

        Raises:
            WorkflowCancelled: it was cancelled, or its deadline has passed.
            OwnershipLost: another process owns it, or may own it because our lease has ended.
            ForkedProcessError: this is a child of the process that runs it.
        """
        self.expire_if_due()
        if self.stop is None and not self.launch.is_valid:
            self.end_with(OwnershipLost(self.workflow_id))
        if self.stop is not None:
            raise self.stop
        if self.launch.is_forked:
            raise ForkedProcessError(operation, self.launch.pid, os.getpid())

    def recorded(self, key: StepKey, name: str, digest: str | None = None) -> RecordedStep | None:
        """What the history holds at ``key``.

        Raises:
            NonDeterministicError: it holds another operation there than ``name``, or one with other arguments.
        """
        if self.history is None:
            return None
        found = self.history.get(key)
        if found is not None:
            self.require_same(key, found, name, digest)
        return found

    def require_same(self, key: StepKey, found: RecordedStep, name: str, digest: str | None) -> None:
        """Raise ``NonDeterministicError`` if the call is not the one that was recorded."""
        if found.name != name:
            raise NonDeterministicError(self.workflow_id, key.path, found.name, name)
        if digest is not None and found.digest not in (None, digest):
            raise NonDeterministicError(self.workflow_id, key.path, found.name, name, arguments_differ=True)


class RunningStep(NamedTuple):
    """The step whose function is running. ``limit``: until when somebody waits for this attempt of it."""

    key: StepKey
    name: str
    attempt: int
    max_attempts: int
    transactional: bool
    limit: TimeLimit | None = None


class Frame(NamedTuple):
    """What the current line of control is doing."""

    run: Run
    scope: Scope
    step: RunningStep | None = None


class OpenTransaction:
    """One attempt of a transaction, while it is open: its session, where that came from, and whose it is."""

    __slots__ = ("_started", "name", "session", "source")

    def __init__(self, session: Any, source: object, name: str) -> None:
        self.session = session
        self.source = source
        self.name = name
        self._started = 0

    def number_start(self) -> int:
        """Number the workflows that it starts, from 1."""
        self._started += 1
        return self._started


current_frame: ContextVar[Frame | None] = ContextVar("dbos_orm_frame", default=None)
current_transaction: ContextVar[OpenTransaction | None] = ContextVar("dbos_orm_transaction", default=None)


def here(*, is_async: bool) -> object:
    """The task (async) or thread (sync, or without a loop) that is executing: where a scope is at home."""
    return asyncio.current_task() if is_async and _get_running_loop() is not None else threading.get_ident()


def frame_for_operation(operation: str) -> Frame:
    """The frame of the workflow body that calls a durable operation.

    Raises:
        NotInWorkflowError: no workflow is running here.
        StepOutsideScopeError: the caller is another task or thread than the workflow's own.
        StepTimeoutError: it is an attempt of a step whose time is up.
    """
    frame = current_frame.get()
    if frame is None:
        raise NotInWorkflowError(operation)
    require_home(frame, operation)
    return frame


def require_home(frame: Frame, operation: str) -> None:
    """Refuse a durable operation from a task or thread whose order a replay could not repeat."""
    frame.run.require_live(operation)
    if frame.step is not None:
        require_time(frame.step)
        return
    scope, place = frame.scope, here(is_async=frame.run.is_async)
    if scope.home is None:
        scope.home = place
    if scope.home != place:
        raise StepOutsideScopeError(operation, frame.run.workflow_id)


def require_time(step: RunningStep) -> None:
    """Raise ``StepTimeoutError`` in an attempt of a step whose time is up."""
    if step.limit is not None:
        step.limit.require()


class RunContext:
    """What user code may ask about the run that it is in; ``dbos.current`` and ``current_run()``."""

    __slots__ = ("_frame",)

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def workflow_id(self) -> str:
        """The ID of the running workflow."""
        return self._frame.run.workflow_id

    @property
    def name(self) -> str:
        """The registered name of the running workflow."""
        return self._frame.run.name

    @property
    def parent_id(self) -> str | None:
        """The ID of the workflow that started this one."""
        return self._frame.run.parent_id

    @property
    def step_id(self) -> str | None:
        """The path of the running step (``3``, ``3.2``), or None in the workflow's own body."""
        return None if self._frame.step is None else self._frame.step.key.path

    @property
    def attempt(self) -> int:
        """Which attempt of the step this is, from 1; attempts before a crash count."""
        return 1 if self._frame.step is None else self._frame.step.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts the step has."""
        return 1 if self._frame.step is None else self._frame.step.max_attempts

    @property
    def idempotency_key(self) -> str:
        """A text that is the same in every attempt of this step, and no other step's; for other systems' APIs."""
        step = self.step_id
        return self.workflow_id if step is None else f"{self.workflow_id}/{step}"

    @property
    def deadline(self) -> datetime | None:
        """The instant at which the workflow is cancelled."""
        return self._frame.run.deadline

    @property
    def is_cancelled(self) -> bool:
        """Whether the run is to end, or this attempt's time is up; a long sync step may ask and return early."""
        run, step = self._frame.run, self._frame.step
        run.expire_if_due()
        return run.stop is not None or (step is not None and step.limit is not None and step.limit.is_over)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry ``workflow_id``, ``step_id`` and ``executor_id``."""
        executor_id = self._frame.run.launch.executor_id
        facts = {"workflow_id": self.workflow_id, "step_id": self.step_id, "executor_id": executor_id}
        return logging.LoggerAdapter(logger, facts)

    def __repr__(self) -> str:
        return f"RunContext(workflow_id={self.workflow_id!r}, step_id={self.step_id!r})"


def current_run() -> RunContext:
    """The context of the workflow or step that is running here.

    Raises:
        NotInWorkflowError: none is.
    """
    frame = current_frame.get()
    if frame is None:
        raise NotInWorkflowError("current_run()")
    return RunContext(frame)


def random_of(frame: Frame) -> random.Random:
    """A random source that gives a replay the numbers of the first run: seeded by run and scope."""
    run = frame.run
    key = frame.scope.path if frame.step is None else f"{frame.step.key.path}#"
    source = run.randoms.get(key)
    if source is None:
        source = run.randoms.setdefault(key, random.Random(f"{run.workflow_id}:{key}"))
    return source


def uuid_of(frame: Frame) -> uuid.UUID:
    """A UUID4 from ``random_of``."""
    return uuid.UUID(int=random_of(frame).getrandbits(128), version=4)
