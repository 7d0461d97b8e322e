"""The hot path: many workflows' entries in one statement, where the database takes that.

Every write is fenced: it happens only where the status row is PENDING and carries the writer's token, and a
row in the way means that nothing is written. Rows that another transaction holds are skipped, so that
one stalled workflow does not hold up the others of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    Table,
    Text,
    case,
    cast,
    exists,
    literal_column,
    null,
    select,
    union_all,
    update,
)
from sqlalchemy.sql import ClauseElement, FromClause
from sqlalchemy.types import BigInteger, TypeEngine

from dbos_orm._dialects import AnyConnection, Dialect
from dbos_orm._store.claim_statement import is_open
from dbos_orm._store.entries import Entry, RunFinish, RunStart, StepEntry
from dbos_orm.models import StepAttempt, StepOutput, WorkflowStatus

_to_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_TEXT: Final = Text()
_STATUS: Final = WorkflowStatus.__table__
_PENDING: Final[ColumnElement[str]] = literal_column("'PENDING'")

_STEP_FIELDS: Final[dict[str, TypeEngine[Any]]] = {
    "workflow_id": _TEXT, "scope": _TEXT, "step_id": Integer(), "owner_token": _TEXT, "write_id": BigInteger(),
    "name": _TEXT, "kind": _TEXT, "output": _TEXT, "error": _TEXT, "serializer": _TEXT, "attempts": Integer(),
    "started_at": _TEXT,
}  # fmt: skip
_RARE_STEP_FIELDS: Final[dict[str, TypeEngine[Any]]] = {
    **_STEP_FIELDS, "child_id": _TEXT, "delay": BigInteger(), "digest": _TEXT,
}  # fmt: skip
_ATTEMPT_FIELDS: Final[dict[str, TypeEngine[Any]]] = {
    "workflow_id": _TEXT, "scope": _TEXT, "step_id": Integer(), "attempt": Integer(), "owner_token": _TEXT,
    "write_id": BigInteger(), "name": _TEXT, "error": _TEXT, "serializer": _TEXT, "started_at": _TEXT,
    "delay": BigInteger(),
}  # fmt: skip
_START_FIELDS: Final[dict[str, TypeEngine[Any]]] = {
    "workflow_id": _TEXT, "application": _TEXT, "name": _TEXT, "version": _TEXT, "version_pinned": Boolean(),
    "generation": _TEXT, "input": _TEXT, "serializer": _TEXT, "executor_id": _TEXT, "owner_token": _TEXT,
    "queue": _TEXT, "timeout": BigInteger(), "deadline": _TEXT, "parent_id": _TEXT, "parent_step": _TEXT,
    "attributes": _TEXT, "class_name": _TEXT, "config_name": _TEXT, "sequence": _TEXT,
}  # fmt: skip
QUEUED_FIELDS: Final[dict[str, TypeEngine[Any]]] = {
    **_START_FIELDS, "priority": Integer(), "partition_key": _TEXT, "deduplication_id": _TEXT, "delay": BigInteger(),
    "schedule": _TEXT,
}  # fmt: skip
"""What is written of a workflow that nobody owns yet: the names of ``RunStart``."""
_FINISH_FIELDS: Final[dict[str, TypeEngine[Any]]] = {
    "workflow_id": _TEXT, "owner_token": _TEXT, "status": _TEXT, "output": _TEXT, "error": _TEXT,
    "serializer": _TEXT,
}  # fmt: skip


class _Kind(NamedTuple):
    """Entries that share a statement. ``identity``: the attribute that the statement returns of what it wrote.

    ``values`` takes those of the fields out of an entry.
    """

    name: str
    fields: dict[str, TypeEngine[Any]]
    build: Callable[..., Any]
    identity: str
    values: Callable[[object], tuple[Any, ...]]


def write(
    connection: AnyConnection, dialect: Dialect, entries: Sequence[Entry], *, skip_locked: bool = True
) -> set[int]:
    """Write what is allowed of ``entries`` and give the indexes of those that were written.

    In a transaction of the caller's, or in autocommit if ``is_single_statement(entries)``. An entry that is
    missing from the answer met a stale token, an ended workflow, a row that exists already, or (with
    ``skip_locked``) a row that is locked. With ``skip_locked`` other transactions that insert the same
    workflow ID are waited for no longer than ``lock_timeout``, and that ends as an error.
    """
    if len(entries) == 1 and not _starts_child(entries[0]):
        # Planned in half the time of the statement for many.
        return {0} if _write_one(connection, dialect, entries[0], skip_locked) else set()
    if dialect.takes_many_rows:
        return _write_many(connection, dialect, entries, skip_locked)
    written = set()
    for number, entry in enumerate(entries):
        if _write_one(connection, dialect, entry, skip_locked):
            written.add(number)
            # The step row comes first: a child exists only if its parent's record of it was written now.
            if isinstance(entry, StepEntry) and entry.child is not None:
                _write_one(connection, dialect, entry.child, skip_locked)
    return written


def insert_run(connection: AnyConnection, dialect: Dialect, entry: RunStart) -> bool:
    """Write a new workflow in a transaction of the user's, with their waiting for locks; False if its ID is known."""
    return _write_one(connection, dialect, entry, skip_locked=False)


def queued_row(entry: RunStart) -> dict[str, Any]:
    """The parameters that ``QUEUED_FIELDS`` names."""
    return _row(_QUEUED_START, entry)


def is_single_statement(dialect: Dialect, entries: Sequence[Entry]) -> bool:
    """Whether ``write`` needs one statement for these, so that it is atomic without BEGIN and COMMIT."""
    return dialect.takes_many_rows or (len(entries) == 1 and not _starts_child(entries[0]))


def _starts_child(entry: Entry) -> bool:
    return isinstance(entry, StepEntry) and entry.child is not None


def _kind_of(entry: Entry) -> _Kind:
    if isinstance(entry, StepEntry):
        return _STEP if entry.delay is None and entry.child_id is None and entry.digest is None else _RARE_STEP
    if isinstance(entry, RunFinish):
        return _RUN_FINISH
    if isinstance(entry, RunStart):
        if entry.owner_token is None:
            return _QUEUED_START
        return _RUN_START if entry.queue is None else _PLACED_START
    return _ATTEMPT


def _write_one(connection: AnyConnection, dialect: Dialect, entry: Entry, skip_locked: bool) -> bool:
    kind = _kind_of(entry)
    statement = dialect.prepared(
        (kind.name, skip_locked),
        lambda: kind.build(dialect, dialect.one_row(kind.fields), kind.fields, skip_locked),
    )
    return bool(statement.execute(connection, _row(kind, entry)))


def _write_many(connection: AnyConnection, dialect: Dialect, entries: Sequence[Entry], skip_locked: bool) -> set[int]:
    groups: dict[str, list[tuple[int, Entry]]] = {}
    # Rows are locked in one order by everybody, so that two batches cannot deadlock.
    for numbered in sorted(enumerate(entries), key=_workflow_id):
        groups.setdefault(_kind_of(numbered[1]).name, []).append(numbered)
    kinds = [kind for kind in _KINDS if kind.name in groups]
    rows = {kind.name: [_row(kind, entry) for _, entry in groups[kind.name]] for kind in kinds}
    children = [
        {**_row(_QUEUED_START, entry.child), _RECORDED_BY: entry.write_id}
        for _, entry in groups.get(_RARE_STEP.name, ())
        if isinstance(entry, StepEntry) and entry.child is not None
    ]
    if children:
        rows[_CHILD] = children
    statement = dialect.prepared(
        ("batch", skip_locked, *rows), lambda: _batch(dialect, kinds, skip_locked, with_children=bool(children))
    )
    returned = statement.execute(connection, {name: _to_json(given) for name, given in rows.items()})
    found = {(row[0], row[1]) for row in returned}
    return {
        number
        for place, kind in enumerate(kinds)
        for number, entry in groups[kind.name]
        if (place, str(getattr(entry, kind.identity))) in found
    }


def _workflow_id(numbered: tuple[int, Entry]) -> str:
    return numbered[1].workflow_id


def _row(kind: _Kind, entry: object) -> dict[str, Any]:
    return dict(zip(kind.fields, kind.values(entry), strict=True))


# -- statements ----------------------------------------------------------------------------------


def _batch(dialect: Dialect, kinds: Sequence[_Kind], skip_locked: bool, *, with_children: bool) -> ClauseElement:
    """One statement for entries of several kinds, whose rows are in a parameter for each kind.

    It returns the place of the kind and what names the entry, for each entry that was written. The kinds are
    written in the order in which they are selected from.
    """
    ctes = [
        kind.build(dialect, dialect.many_rows(kind.fields, kind.name), kind.fields, skip_locked).cte(kind.name)
        for kind in kinds
    ]
    if with_children:
        # The step row comes first: a child exists only if its parent's record of it was written now.
        given = dialect.many_rows({**QUEUED_FIELDS, _RECORDED_BY: BigInteger()}, _CHILD)
        parents = ctes[kinds.index(_RARE_STEP)]
        is_recorded = given.c[_RECORDED_BY].in_(select(parents.c.write_id))
        ctes.append(_insert_runs(dialect, given, QUEUED_FIELDS, skip_locked, is_recorded).cte(_CHILD))
    return union_all(
        *(select(literal_column(str(place)), cast(next(iter(cte.c)), Text)) for place, cte in enumerate(ctes))
    )


def _insert_steps(dialect: Dialect, given: FromClause, fields: dict[str, TypeEngine[Any]], skip_locked: bool) -> Any:
    now = dialect.now()
    values: dict[str, ColumnElement[Any]] = {
        name: given.c[name] for name in fields if name not in ("output", "error", "started_at", "delay")
    }
    values["output"] = cast(given.c.output, StepOutput.output.type)
    values["error"] = cast(given.c.error, StepOutput.error.type)
    values["started_at"] = dialect.instant_from_text(given.c.started_at)
    values["completed_at"] = now
    if "delay" in fields:
        values["wake_at"] = dialect.plus_microseconds(now, given.c.delay)
    return _fenced_insert(dialect, StepOutput.__table__, values, given, skip_locked)


def _insert_attempts(dialect: Dialect, given: FromClause, fields: dict[str, TypeEngine[Any]], skip_locked: bool) -> Any:
    now = dialect.now()
    values: dict[str, ColumnElement[Any]] = {
        name: given.c[name] for name in fields if name not in ("error", "started_at", "delay")
    }
    values["error"] = cast(given.c.error, StepAttempt.error.type)
    values["started_at"] = dialect.instant_from_text(given.c.started_at)
    values["failed_at"] = now
    values["next_at"] = dialect.plus_microseconds(now, given.c.delay)
    return _fenced_insert(dialect, StepAttempt.__table__, values, given, skip_locked)


def _fenced_insert(dialect: Dialect, table: Table, values: dict[str, Any], given: FromClause, skip_locked: bool) -> Any:
    fence = select(*values.values()).select_from(
        given.join(
            _STATUS,
            (_STATUS.c.workflow_id == given.c.workflow_id) & (_STATUS.c.owner_token == given.c.owner_token),
        )
    )
    fence = dialect.lock_own(
        fence.where(_STATUS.c.status.is_not_distinct_from(_PENDING)), _STATUS, skip_locked=skip_locked
    )
    inserted = dialect.insert(table).from_select(list(values), fence, include_defaults=False)
    return inserted.on_conflict_do_nothing().returning(table.c.write_id)


def _insert_runs(
    dialect: Dialect,
    given: FromClause,
    fields: dict[str, TypeEngine[Any]],
    skip_locked: bool,
    is_wanted: ColumnElement[bool] | None = None,
) -> Any:
    conditions = [] if is_wanted is None else [is_wanted]
    if skip_locked:
        conditions.append(dialect.lock_bound())
    inserted = insertion_of_runs(dialect, given, fields, *conditions)
    return inserted.on_conflict_do_nothing().returning(_STATUS.c.generation)


def _insert_placed_runs(
    dialect: Dialect, given: FromClause, fields: dict[str, TypeEngine[Any]], skip_locked: bool
) -> Any:
    """Like ``_insert_runs``, of workflows that begin at once: only where nobody waits before them."""
    waiting = exists().where(
        _STATUS.c.status == literal_column("'ENQUEUED'"),
        _STATUS.c.application == given.c.application,
        _STATUS.c.queue == given.c.queue,
    )
    return _insert_runs(dialect, given, fields, skip_locked, is_open(given.c.application, given.c.queue) & ~waiting)


def insertion_of_runs(
    dialect: Dialect, given: FromClause, fields: dict[str, TypeEngine[Any]], *conditions: ColumnElement[bool]
) -> Any:
    """An INSERT of the new workflows ``given`` for which the conditions hold; what a conflict means is left open.

    With ``longest_delay`` among the fields ``debounce_until`` is set that much later than now.
    """
    now = dialect.now()
    durations = ("delay", "longest_delay")
    ours: dict[str, ColumnElement[Any]] = {name: given.c[name] for name in fields if name not in durations}
    ours["input"] = cast(given.c.input, WorkflowStatus.input.type)
    ours["attributes"] = dialect.attributes_from_text(given.c.attributes)
    is_owned = given.c.owner_token.is_not(None)
    ours["deadline"] = earlier_deadline(dialect, now, given.c.timeout, given.c.deadline, starts_now=is_owned)
    is_delayed = given.c.delay.is_not(None) if "delay" in fields else literal_column("1 = 0", Boolean)
    ours["status"] = case(
        (is_owned, _PENDING), (is_delayed, literal_column("'DELAYED'")), else_=literal_column("'ENQUEUED'")
    )
    ours["started_at"] = case((is_owned, now), else_=null())
    ours["enqueued_at"] = case((is_owned, null()), (is_delayed, null()), else_=now)
    if "delay" in fields:
        ours["delay_until"] = dialect.plus_microseconds(now, given.c.delay)
    if "longest_delay" in fields:
        ours["debounce_until"] = dialect.plus_microseconds(now, given.c.longest_delay)
    ours["created_at"] = now
    ours["updated_at"] = now
    # Always a condition: without one SQLite takes ON CONFLICT for the end of the join.
    wanted = select(*ours.values()).select_from(given).where(*(conditions or [literal_column("1 = 1", Boolean)]))
    return dialect.insert(_STATUS).from_select(list(ours), wanted, include_defaults=False)


def earlier_deadline(
    dialect: Dialect,
    now: ColumnElement[Any],
    timeout: ColumnElement[Any],
    deadline: ColumnElement[Any],
    *,
    starts_now: ColumnElement[bool],
) -> ColumnElement[Any]:
    """The deadline given as text, or the end of the timeout if that is earlier and the run starts now."""
    given = dialect.instant_from_text(deadline)
    end = dialect.plus_microseconds(now, timeout)
    return case(
        (timeout.is_(None) | ~starts_now, given),
        (deadline.is_(None) | (end < given), end),
        else_=given,
    )


def _update_runs(dialect: Dialect, given: FromClause, fields: dict[str, TypeEngine[Any]], skip_locked: bool) -> Any:
    ours = (
        select(_STATUS.c.workflow_id.label("found"), *given.c)
        .select_from(
            given.join(
                _STATUS,
                (_STATUS.c.workflow_id == given.c.workflow_id) & (_STATUS.c.owner_token == given.c.owner_token),
            )
        )
        .where(_STATUS.c.status.is_not_distinct_from(_PENDING))
        .with_for_update(of=_STATUS, key_share=True, skip_locked=skip_locked)
        .cte("ours")
    )
    now = dialect.now()
    return (
        update(_STATUS)
        .where(_STATUS.c.workflow_id == ours.c.found)
        .values(
            status=ours.c.status,
            output=cast(ours.c.output, WorkflowStatus.output.type),
            error=cast(ours.c.error, WorkflowStatus.error.type),
            serializer=ours.c.serializer,
            completed_at=now,
            updated_at=now,
        )
        .returning(_STATUS.c.workflow_id)
    )


_STEP: Final = _Kind("step", _STEP_FIELDS, _insert_steps, "write_id", attrgetter(*_STEP_FIELDS))
_RARE_STEP: Final = _Kind("rare_step", _RARE_STEP_FIELDS, _insert_steps, "write_id", attrgetter(*_RARE_STEP_FIELDS))
_RUN_START: Final = _Kind("run_start", _START_FIELDS, _insert_runs, "generation", attrgetter(*_START_FIELDS))
_QUEUED_START: Final = _Kind("queued_start", QUEUED_FIELDS, _insert_runs, "generation", attrgetter(*QUEUED_FIELDS))
_PLACED_START: Final = _QUEUED_START._replace(name="placed_start", build=_insert_placed_runs)
_ATTEMPT: Final = _Kind("attempt", _ATTEMPT_FIELDS, _insert_attempts, "write_id", attrgetter(*_ATTEMPT_FIELDS))
_RUN_FINISH: Final = _Kind("run_finish", _FINISH_FIELDS, _update_runs, "workflow_id", attrgetter(*_FINISH_FIELDS))
_KINDS: Final = (_STEP, _RARE_STEP, _RUN_START, _QUEUED_START, _PLACED_START, _ATTEMPT, _RUN_FINISH)
"""In the order in which they are written."""
_CHILD: Final = "child"
_RECORDED_BY: Final = "recorded_by"
"""In the row of a child: the write ID of the step that starts it."""
