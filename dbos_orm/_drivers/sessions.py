"""The sessions that transactional steps run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from dbos_orm._context import OpenTransaction
from dbos_orm._dialects import Dialect
from dbos_orm._drivers.writer_turn import WriterTurn
from dbos_orm._flows.effects import WriteResult
from dbos_orm._store import checkpoints, second_database
from dbos_orm._store.entries import OutputEntry, StepEntry
from dbos_orm.errors import SessionMisuseError

_OUR_COMMIT: Final = "dbos_orm_commit"


class Database:
    """One database of an application, over however many engines: ``is_own`` if the workflows are in it.

    ``writer`` is the line of those in this process who are about to write there, where there is one writer.
    """

    __slots__ = ("is_own", "writer")

    def __init__(self, *, is_own: bool, writer: WriterTurn | None) -> None:
        self.is_own = is_own
        self.writer = writer


class SessionSource:
    """Makes sessions of the user's kind. They are ours: opened, committed and closed by the step.

    ``registry`` is the user's scoped session, which gives out the step's session while the step runs.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        engine: Engine,
        dialect: Dialect,
        database: Database,
        registry: scoped_session[Any] | async_scoped_session[Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._factory = factory
        self._registry = registry
        self._options = {**(options or {}), "expire_on_commit": False}
        self.engine = engine
        self.dialect = dialect
        self.database = database

    @property
    def is_own(self) -> bool:
        """Whether the workflows are in the same database."""
        return self.database.is_own

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return self.engine.url.render_as_string()

    def request_turn(self) -> Future[None] | None:
        """A turn at writing, to be waited for; None if there is no need of one."""
        return None if self.database.writer is None else self.database.writer.request()

    def withdraw_turn(self, turn: Future[None]) -> None:
        """Give up a turn that was requested, whether it has come or not."""
        if self.database.writer is not None:
            self.database.writer.withdraw(turn)

    def release_turn(self) -> None:
        """Give the turn back, once the session is closed."""
        if self.database.writer is not None:
            self.database.writer.release()

    def make(self) -> Any:
        """A session that is not begun. Its values stay readable after the commit."""
        return self._factory(**self._options)

    def lending(self, session: Any) -> AbstractContextManager[None]:
        """Around a function that runs on a session of this source: have the user's scoped session be that one."""
        return nullcontext() if self._registry is None else self._lent(session)

    @contextmanager
    def _lent(self, session: Any) -> Iterator[None]:
        assert self._registry is not None
        registry = self._registry.registry
        before = registry() if registry.has() else None
        registry.set(session)
        try:
            yield
        finally:
            registry.clear()
            if before is not None:
                registry.set(before)


def source_of(transaction: OpenTransaction) -> SessionSource:
    """Where the session of a transaction came from."""
    return as_source(transaction.source)


def as_source(source: object) -> SessionSource:
    """What a flow handed on, which knows less of it."""
    assert isinstance(source, SessionSource)
    return source


def lending(transaction: OpenTransaction | None) -> AbstractContextManager[None]:
    """Around a function that runs in a transaction, or in none."""
    return nullcontext() if transaction is None else source_of(transaction).lending(transaction.session)


def begin(
    session: Session, dialect: Dialect, isolation_level: str | None = None, statement_timeout: timedelta | None = None
) -> None:
    """Begin the transaction of a step on its session."""
    event.listen(session, "before_commit", _refuse_commit)
    if statement_timeout is not None:
        # At every beginning, because the function may roll back and go on.
        event.listen(session, "after_begin", _limiting(dialect, statement_timeout))
    session.begin()
    if dialect.is_guest:
        isolation_level = None
    # Connected before the function is called, so that no error of connecting looks like one of the function's.
    session.connection(execution_options=None if isolation_level is None else {"isolation_level": isolation_level})


def record(session: Session, dialect: Dialect, entry: StepEntry | OutputEntry) -> WriteResult:
    """Write a checkpoint in the session's transaction."""
    connection: Connection = session.connection()
    if isinstance(entry, OutputEntry):
        written = second_database.insert_output(connection, dialect, entry)
    else:
        written = bool(checkpoints.write(connection, dialect, [entry], skip_locked=False))
    return WriteResult.WRITTEN if written else WriteResult.REFUSED


def commit(session: Session) -> None:
    """Commit a session that refuses it to everybody else."""
    session.info[_OUR_COMMIT] = True
    session.commit()


def _limiting(dialect: Dialect, timeout: timedelta) -> Callable[[Session, SessionTransaction, Connection], None]:
    def limit(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        if not transaction.nested:
            dialect.limit_statements(connection, timeout)

    return limit


def _refuse_commit(session: Session) -> None:
    if session.in_nested_transaction() or session.info.get(_OUR_COMMIT):
        return
    raise SessionMisuseError(
        "commit() in a transactional step",
        "the step commits its session together with its checkpoint when the function returns; "
        "leave the commit out, or use session.begin_nested() for a savepoint",
    )
