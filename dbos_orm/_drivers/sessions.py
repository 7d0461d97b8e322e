"""The sessions that transactional steps run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from dbos_orm._dialects import Dialect
from dbos_orm._drivers.writer_turn import WriterTurn
from dbos_orm._flows.effects import WriteResult
from dbos_orm._store import checkpoints
from dbos_orm._store.entries import StepEntry
from dbos_orm.errors import SessionMisuseError

_OUR_COMMIT: Final = "dbos_orm_commit"


class SessionSource:
    """Makes sessions of the user's kind. They are ours: opened, committed and closed by the step.

    ``writer`` is the turn at writing that a session needs while it is open, where there is one writer.
    ``registry`` is the user's scoped session, which gives out the step's session while the step runs.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        dialect: Dialect,
        writer: WriterTurn | None,
        registry: scoped_session[Any] | async_scoped_session[Any] | None,
    ) -> None:
        self._factory = factory
        self._registry = registry
        self.dialect = dialect
        self._writer = writer

    def request_turn(self) -> Future[None] | None:
        """A turn at writing, to be waited for; None if there is no need of one."""
        return None if self._writer is None else self._writer.request()

    def withdraw_turn(self, turn: Future[None]) -> None:
        """Give up a turn that was requested, whether it has come or not."""
        if self._writer is not None:
            self._writer.withdraw(turn)

    def release_turn(self) -> None:
        """Give the turn back, once the session is closed."""
        if self._writer is not None:
            self._writer.release()

    def make(self) -> Any:
        """A session that is not begun. Its values stay readable after the commit."""
        return self._factory(expire_on_commit=False)

    @contextmanager
    def lent(self, session: Any) -> Iterator[None]:
        """Have the user's scoped session be this session, and what it was before afterwards."""
        if self._registry is None or session is None:
            yield
            return
        registry = self._registry.registry
        before = registry() if registry.has() else None
        registry.set(session)
        try:
            yield
        finally:
            registry.clear()
            if before is not None:
                registry.set(before)


def begin(session: Session, dialect: Dialect, isolation_level: str | None) -> None:
    """Begin the transaction of a step on its session."""
    event.listen(session, "before_commit", _refuse_commit)
    session.begin()
    if dialect.is_guest:
        isolation_level = None
    # Connected before the function is called, so that no error of connecting looks like one of the function's.
    session.connection(execution_options=None if isolation_level is None else {"isolation_level": isolation_level})


def record(session: Session, dialect: Dialect, entry: StepEntry) -> WriteResult:
    """Write a checkpoint in the session's transaction."""
    connection: Connection = session.connection()
    written = checkpoints.write(connection, dialect, [entry], skip_locked=False)
    return WriteResult.WRITTEN if written else WriteResult.REFUSED


def commit(session: Session) -> None:
    """Commit a session that refuses it to everybody else."""
    session.info[_OUR_COMMIT] = True
    session.commit()


def _refuse_commit(session: Session) -> None:
    if session.in_nested_transaction() or session.info.get(_OUR_COMMIT):
        return
    raise SessionMisuseError(
        "commit() in a transactional step",
        "the step commits its session together with its checkpoint when the function returns; "
        "leave the commit out, or use session.begin_nested() for a savepoint",
    )
