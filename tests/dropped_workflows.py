"""Workflows that between them use every flow, for dropping them at every effect."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbos_orm import DBOS, Retry, WorkflowHandle, current_run
from dbos_orm.errors import SerializationError, StepTimeoutError, WorkflowTimeoutError
from tests.dropped_queues import FOR_EVER, register_queued

RETRY = Retry(max_attempts=2, backoff=0.001)
TIMEOUT = 0.05


class Base(DeclarativeBase):
    """The user's own declarative base."""


class Posting(Base):
    """A row of the user's; nothing in the database keeps it from being written twice."""

    __tablename__ = "posting"

    id: Mapped[int] = mapped_column(primary_key=True)
    workflow_id: Mapped[str]
    path: Mapped[str]
    note: Mapped[str]


class Journal:
    """How often each attempt of each plain step was begun: outside the database, like the rest of the world."""

    def __init__(self) -> None:
        self.begun: Counter[tuple[str, str, int]] = Counter()
        self.interrupted: set[str] = set()
        self._lock = threading.Lock()

    def note(self) -> int:
        """Note the step that is running; gives the number of its attempt."""
        run = current_run()
        assert run.step_id is not None
        with self._lock:
            self.begun[run.workflow_id, run.step_id, run.attempt] += 1
        return run.attempt

    def is_first_time(self) -> bool:
        """Whether this workflow asks for the first time."""
        workflow_id = current_run().workflow_id
        with self._lock:
            is_first = workflow_id not in self.interrupted
            self.interrupted.add(workflow_id)
        return is_first


class Interruption(BaseException):
    """What a server does to its tasks when it is shut down."""


class _ConflictError(Exception):
    """What the drivers of both databases say when transactions are in each other's way."""

    sqlstate = "40001"


def conflict() -> OperationalError:
    """A serialization failure."""
    return OperationalError("simulated", None, _ConflictError("could not serialize: database is locked"))


def posting(note: str) -> Posting:
    """A row of the transaction that is running."""
    run = current_run()
    assert run.step_id is not None
    return Posting(workflow_id=run.workflow_id, path=run.step_id, note=note)


# A list of small functions is not a long function.
def register(dbos: DBOS, journal: Journal) -> Mapping[str, Any]:  # noqa: C901, PLR0915
    """The workflows by name, on an application; the same ones on each."""
    workflows: dict[str, Any] = {}

    def scenario(workflow: Any) -> None:
        workflows[workflow.name.rpartition(".")[2]] = workflow

    @dbos.step
    def double(number: int) -> int:
        journal.note()
        return 2 * number

    @dbos.step
    def keep(values: list[Any]) -> list[Any]:
        journal.note()
        return values

    @dbos.step
    def nap() -> None:
        journal.note()
        dbos.sleep(0.001)

    @dbos.step
    def fail(reason: str) -> str:
        journal.note()
        raise ValueError(reason)

    @dbos.step(retry=RETRY)
    def succeed_at(attempt: int) -> int:
        if journal.note() < attempt:
            raise ValueError(f"attempt {attempt} is awaited")
        return attempt

    @dbos.step(timeout=0.01)
    def be_late() -> None:
        journal.note()
        dbos.sleep(FOR_EVER)

    @dbos.transaction
    def post(session: Session, note: str) -> str:
        session.add(posting(note))
        return note

    @dbos.transaction
    def post_and_fail(session: Session, note: str) -> str:
        session.add(posting(note))
        session.flush()
        raise ValueError(note)

    @dbos.transaction
    def post_and_return_a_lock(session: Session, note: str) -> object:
        session.add(posting(note))
        return threading.Lock()

    @dbos.transaction
    def post_in_conflict(session: Session, note: str) -> str:
        session.add(posting(note))
        session.flush()
        if dbos.current.attempt == 1:
            raise conflict()
        return note

    @scenario
    @dbos.workflow
    def steps() -> int:
        return double(double(1))

    @scenario
    @dbos.workflow
    def retried() -> int:
        return succeed_at(2)

    @scenario
    @dbos.workflow
    def exhausted() -> int:
        return succeed_at(9)

    @scenario
    @dbos.workflow
    def limited() -> int:
        try:
            be_late()
        except StepTimeoutError:
            return double(1)
        return 0

    @scenario
    @dbos.workflow
    def submitted() -> list[Any]:
        found: list[Any] = dbos.gather(double.submit(1), succeed_at.submit(2), double.submit(3))
        return [*found, *dbos.gather(post.submit("a"), post.submit("b")), double(4)]

    @scenario
    @dbos.workflow
    def left_at_work() -> int:
        nap.submit()
        post.submit("left")
        return double(1)

    @scenario
    @dbos.workflow
    def caught() -> int:
        try:
            fail("on purpose")
        except ValueError as error:
            return double(len(str(error)))
        return 0

    @scenario
    @dbos.workflow
    def raising() -> int:
        raise LookupError(f"nothing at {double(4)}")

    @scenario
    @dbos.workflow
    def transactional() -> str:
        return post("once")

    @scenario
    @dbos.workflow
    def rolled_back() -> str:
        try:
            return post_and_fail("never")
        except ValueError:
            return post("instead")

    @scenario
    @dbos.workflow
    def refused() -> str:
        try:
            post_and_return_a_lock("never")
        except SerializationError as error:
            return error.path
        return "never"

    @scenario
    @dbos.workflow
    def conflicting() -> str:
        return post_in_conflict("once")

    @scenario
    @dbos.workflow
    def sleeping() -> None:
        dbos.sleep(0.001)
        nap()

    @scenario
    @dbos.workflow
    def moments() -> bool:
        drawn = [dbos.uuid(), dbos.now(), uuid.UUID(int=dbos.random.getrandbits(128))]
        return keep(drawn) == drawn

    @dbos.workflow
    def poster(note: str) -> str:
        return post(note)

    @dbos.workflow
    def child(number: int) -> str:
        return str(double(number))

    staged: dict[str, WorkflowHandle[str]] = {}

    @dbos.transaction
    def post_and_start(session: Session, note: str) -> str:
        session.add(posting(note))
        handle = child.start(7)
        staged[handle.workflow_id] = handle
        return child.start_in(session, 8).workflow_id

    @scenario
    @dbos.workflow
    def children_of_a_transaction() -> list[str]:
        second = post_and_start("once")
        first = f"{second.rpartition('-')[0]}-1"
        return [staged.get(first, child.handle(first)).result(), child.handle(second).result()]

    @dbos.workflow
    def parent(number: int) -> str:
        return poster(str(number))

    @dbos.workflow
    def failing_child(reason: str) -> int:
        raise LookupError(reason)

    @dbos.workflow
    def endless_child() -> None:
        dbos.sleep(FOR_EVER)

    @scenario
    @dbos.workflow
    def called_child() -> str:
        return parent(7)

    @scenario
    @dbos.workflow
    def started_child() -> str:
        handle = child.start(7)
        return handle.result()

    @scenario
    @dbos.workflow
    def named_children() -> list[str]:
        named = child.options(workflow_id=f"{dbos.current.workflow_id}-named")
        handle = named.start(7)
        return [named(7), handle.result()]

    @scenario
    @dbos.workflow
    def forgotten_child() -> str:
        return child.start(7).workflow_id

    @scenario
    @dbos.workflow
    def failed_child() -> str:
        try:
            failing_child("on purpose")
        except LookupError as error:
            return str(error)
        return "never"

    @scenario
    @dbos.workflow
    def asked_child() -> list[str]:
        handle = child.start(7)
        handle.result()
        handle.cancel()
        return [handle.status(), handle.describe().name, handle.steps()[0].name]

    register_queued(dbos, journal, scenario, child)

    @scenario
    @dbos.workflow
    def timed_out_child() -> str:
        try:
            endless_child.options(timeout=TIMEOUT)()
        except WorkflowTimeoutError:
            return "in time"
        return "never"

    @scenario
    @dbos.workflow
    def interrupted() -> int:
        before = double(1)
        if journal.is_first_time():
            raise Interruption
        return before + double(2)

    @scenario
    @dbos.workflow
    def mixture() -> str:
        failing_child.start("unheard")
        return post(str(succeed_at(2)))

    return workflows
