"""Starting workflows in transactions that are the caller's: with their rows, or not at all.

What is written here is one INSERT on the caller's own connection. Nothing is pending in the unit of work,
nothing is flushed, and nothing of the caller's is committed, rolled back or expired.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.util import greenlet_spawn

from dbos_orm._context import OpenTransaction, current_transaction
from dbos_orm._dialects import Dialect
from dbos_orm._drivers.service_loop import AsyncGateway
from dbos_orm._runtime import Runtime
from dbos_orm._store.entries import INTERNAL_QUEUE
from dbos_orm._store.starting import Placed, Start, load_queues, place, require_queue, waiting_place
from dbos_orm._store.starting_many import StartAlike, patterns_of, place_all
from dbos_orm.errors import NotCommittedError, SessionMisuseError, StartInStepError
from dbos_orm.models import WorkflowStatus

T = TypeVar("T")

SyncScope: TypeAlias = Session | scoped_session[Any] | Connection
AsyncScope: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection
ASYNC_SCOPES: Final = (AsyncSession, async_scoped_session, AsyncConnection)
"""What makes a start a coroutine."""

_LOADED_ROWS: Final = "dbos_orm.loaded_rows"
"""In the ``info`` of a caller's session: the rows that handles gave out, with the transactions that hold each."""


class Staging:
    """A workflow that is written in somebody's transaction, which has not ended yet."""

    def __init__(self, scope: Session | Connection, placed: Placed) -> None:
        self.scope = scope
        self.workflow_id, self.created = placed
        self._root = scope.get_transaction()
        self._enclosing = _with_parents(scope.get_nested_transaction() or self._root)

    @property
    def is_open(self) -> bool:
        """Whether the transaction has neither been committed nor rolled back."""
        return self._root is not None and self._root.is_active and self.scope.get_transaction() is self._root

    def load(self) -> WorkflowStatus:
        """The row as an object of the caller's session; it leaves the session with the savepoint that holds it.

        Raises:
            SessionMisuseError: the workflow was started on a connection, which has no objects.
            NotCommittedError: it was rolled back.
        """
        session, workflow_id = self.scope, self.workflow_id
        if not isinstance(session, Session):
            raise SessionMisuseError(
                f"the row of workflow {workflow_id!r}, which was started on a Connection",
                "start it on a Session, or select it",
            )
        row = session.get(WorkflowStatus, workflow_id)
        if row is None:
            raise NotCommittedError("row", workflow_id)
        loaded = session.info.setdefault(_LOADED_ROWS, WeakKeyDictionary())
        loaded.setdefault(row, self._enclosing)
        _listen_once(session, "after_soft_rollback", _expunge_rolled_back)
        return row


def _expunge_rolled_back(session: Session, previous: SessionTransaction) -> None:
    # The unit of work did not insert these rows, and so would keep them as if they were still there.
    for row, enclosing in list(session.info[_LOADED_ROWS].items()):
        if previous in enclosing and row in session:
            session.expunge(row)


def sync_scope(scope: object, operation: str) -> Session | Connection:
    """The session or connection behind what a user has; of an asynchronous one, the synchronous one within it.

    Raises:
        SessionMisuseError: it is neither.
    """
    if isinstance(scope, (scoped_session, async_scoped_session)):
        scope = scope()
    if isinstance(scope, AsyncSession):
        scope = scope.sync_session
    elif isinstance(scope, AsyncConnection):
        scope = scope.sync_connection
    if not isinstance(scope, (Session, Connection)):
        raise SessionMisuseError(
            f"{operation} was given {scope!r}",
            "give a Session, scoped_session or Connection, or one of their asynchronous kinds",
        )
    return scope


def enclosing_transaction(runtime: Runtime, name: str, operation: str, scope: object = None) -> OpenTransaction | None:
    """The transaction that is running here and that a start becomes a part of; None if none is.

    ``scope``: where the caller wants the start, which must be that transaction's own session.

    Raises:
        StartInStepError: a plain step is running here.
        SessionMisuseError: the start would not be a part of what is running here.
    """
    frame, transaction = runtime.frame(), current_transaction.get()
    if frame is not None and frame.step is not None and not frame.step.transactional:
        raise StartInStepError(name, frame.step.name)
    if scope is None or transaction is None:
        if scope is not None and frame is not None:
            raise SessionMisuseError(
                f"{operation} in the body of workflow {frame.run.workflow_id!r}, whose replay would start another one",
                "use start(), or do it in a @dbos.transaction",
            )
        return transaction
    session = sync_scope(transaction.session, operation)
    if scope is not session and not (isinstance(session, Session) and scope is session.connection()):
        raise SessionMisuseError(
            f"{operation} on another session than that of the transaction which is running here",
            "give it the transaction's own session, or call start()",
        )
    return transaction


def stage(runtime: Runtime, scope: Session | Connection, start: Start) -> Staging:
    """Write a workflow in the transaction of ``scope``; its commit, whenever that comes, is the start.

    Raises:
        SessionMisuseError: there is no transaction of this application's database that could hold it.
        ConflictingWorkflowError: the ID belongs to another workflow function or application.
        WorkflowExistsError, DeduplicationError: the ID, or the deduplication ID, is known, and that is an error.
        QueueNotFoundError: nobody knows the queue.
    """
    entry = start.entry
    connection, dialect = _transaction_of(runtime, scope, f"workflow {entry.name!r}")
    _require_queues(runtime, connection, [start])
    placed = place(connection, dialect, start)
    _announce_at_commit(runtime, scope, {waiting_place(entry)})
    return Staging(scope, placed)


def stage_many(runtime: Runtime, scope: Session | Connection, starts: Sequence[StartAlike]) -> list[Staging]:
    """``stage`` for many: all of them, or none if one raises."""
    connection, dialect = _transaction_of(runtime, scope, f"{len(starts)} workflows")
    patterns = patterns_of(starts)
    _require_queues(runtime, connection, patterns)
    placed = place_all(connection, dialect, starts)
    _announce_at_commit(runtime, scope, {waiting_place(pattern.entry) for pattern in patterns})
    return [Staging(scope, one) for one in placed]


async def on_async_scope(runtime: Runtime, staged: Callable[[], T]) -> T:
    """Call ``stage`` or ``stage_many`` for a coroutine, on what is within its asynchronous session or connection."""
    binding = runtime.given_binding()
    if binding is not None and isinstance(binding.gateway, AsyncGateway) and not binding.databases.knows_own:
        # Here, because asking would block the event loop from where sessions are used.
        await binding.gateway.read_async(binding.databases.learn_own)
    found: T = await greenlet_spawn(staged)
    return found


def _transaction_of(runtime: Runtime, scope: Session | Connection, what: str) -> tuple[Connection, Dialect]:
    connection = _connection_of(scope, what)
    dialect = runtime.dialect_of(connection)
    if dialect.is_autocommit(connection):
        raise SessionMisuseError(
            f"the start of {what} on a connection in AUTOCOMMIT, which has no transactions",
            "give one with an isolation level, or use start()",
        )
    return connection, dialect


def _require_queues(runtime: Runtime, connection: Connection, starts: Sequence[Start]) -> None:
    shared, application = runtime.queues_of(connection), runtime.application
    known = dict(shared)
    for start in starts:
        queue = start.entry.queue
        if queue is not None and queue != INTERNAL_QUEUE:
            if queue not in known:
                known = load_queues(connection, application.name)
                shared.update(known)
            require_queue(start.entry, known, application.registry)


def _connection_of(scope: Session | Connection, what: str) -> Connection:
    try:
        if isinstance(scope, Session):
            return scope.connection(bind_arguments={"mapper": WorkflowStatus.__mapper__})
        if not scope.in_transaction():
            # As its first statement would: what has begun can tell whether it is a transaction at all.
            scope.begin()
    except PendingRollbackError:
        raise
    except InvalidRequestError as error:
        raise SessionMisuseError(
            f"the start of {what} on {scope!r}, which cannot be used: {error}",
            "give a session that is open and bound to the application's database",
        ) from error
    return scope


def _announce_at_commit(
    runtime: Runtime, scope: Session | Connection | Engine, places: Collection[tuple[str, str]]
) -> None:
    """Have it said where workflows wait when the transaction is committed; a rollback costs one look at nothing."""
    if isinstance(scope, Session):
        runtime.expect(scope, places)
        _listen_once(scope, "after_commit", runtime.has_committed)
        scope = scope.get_bind(WorkflowStatus.__mapper__)
    if isinstance(scope, Connection):
        runtime.expect(scope, places)
        _listen_once(scope, "commit", runtime.is_committing)
        _listen_once(scope, "commit_twophase", runtime.is_committing)


def _listen_once(scope: Session | Connection, name: str, listener: Callable[..., None]) -> None:
    if not event.contains(scope, name, listener):
        event.listen(scope, name, listener)


def _with_parents(transaction: Any) -> set[Any]:
    found = set()
    while transaction is not None:
        found.add(transaction)
        transaction = getattr(transaction, "parent", None)
    return found
