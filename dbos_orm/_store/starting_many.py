"""Starts of thousands in one transaction: all of them, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Integer, select, update
from sqlalchemy.engine import Connection

from dbos_orm._dialects import Dialect
from dbos_orm._store import checkpoints
from dbos_orm._store.checkpoints import QUEUED_FIELDS
from dbos_orm._store.entries import StepEntry
from dbos_orm._store.starting import Placed, Start, place
from dbos_orm.errors import DBOSError
from dbos_orm.models import StepOutput, WorkflowStatus

_MOST_ROWS: Final = 1000
_MOST_CHARACTERS: Final = 2_000_000
"""Of inputs in one statement. A larger row has one of its own."""
_OTHER_CHARACTERS: Final = 500
_SAVEPOINT: Final = "dbos_starts"

_to_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_OWN: Final = {name: QUEUED_FIELDS[name] for name in ("workflow_id", "generation", "input", "sequence")}
_ALIKE: Final = {name: kind for name, kind in QUEUED_FIELDS.items() if name not in _OWN}
"""What many starts have in common."""
_PATTERN: Final = "pattern"


class StartAlike(NamedTuple):
    """One of many starts: what it has in common with others (all but these columns), and its own.

    Thousands of whole rows would be large objects, which Python's collector looks through again and again.
    """

    pattern: Start
    workflow_id: str
    generation: str
    payload: str
    sequence: str

    @property
    def start(self) -> Start:
        """The whole of it."""
        _, workflow_id, generation, payload, sequence = self
        entry = replace(
            self.pattern.entry, workflow_id=workflow_id, generation=generation, input=payload, sequence=sequence
        )
        return self.pattern._replace(entry=entry)


def patterns_of(starts: Iterable[StartAlike]) -> list[Start]:
    """What starts have in common, once each."""
    return list({id(start.pattern): start.pattern for start in starts}.values())


def place_all(connection: Connection, dialect: Dialect, starts: Sequence[StartAlike]) -> list[Placed]:
    """Write new workflows in a transaction of the caller's, or find those in their places; in their order.

    Raises:
        ConflictingWorkflowError, WorkflowExistsError, DeduplicationError: one of them cannot be; none was written.
    """
    with _undoable(connection):
        # In one order by everybody, so that two that have IDs in common do not wait for each other in a circle.
        plain = sorted([start for start in starts if not start.pattern.entry.is_debounced], key=_key_of(starts))
        written = {generation for batch in _batches(plain) for generation in _insert(connection, dialect, batch)}
        return [
            Placed(start.workflow_id, created=True)
            if start.generation in written
            else place(connection, dialect, start.start)
            for start in starts
        ]


def place_all_or_refuse(
    connection: Connection, dialect: Dialect, starts: Sequence[StartAlike]
) -> list[Placed] | DBOSError:
    """``place_all`` in a transaction of our own, with the error as a value."""
    dialect.bound_locks(connection)
    try:
        return place_all(connection, dialect, starts)
    except DBOSError as error:
        return error


def place_children(
    connection: Connection,
    dialect: Dialect,
    step: StepEntry,
    starts: Sequence[StartAlike],
    encode: Callable[[Sequence[Placed]], str],
    encode_error: Callable[[DBOSError], str],
) -> list[Placed] | DBOSError | None:
    """``place_all_or_refuse`` as a step, which is recorded with what came of it, or not at all.

    None if the step was not recorded, because its run has ended or has recorded it before: then nothing
    was done. ``step`` is written with the output that it has if all of them are new.
    """
    dialect.bound_locks(connection)
    # The step row comes first: a child exists only if its parent's record of it was written now.
    if not checkpoints.write(connection, dialect, [step], skip_locked=False):
        return None
    placed = place_all_or_refuse(connection, dialect, starts)
    if isinstance(placed, DBOSError):
        _correct(connection, step, None, encode_error(placed))
    elif not all(one.created for one in placed):
        _correct(connection, step, encode(placed), None)
    return placed


def _insert(connection: Connection, dialect: Dialect, starts: Sequence[StartAlike]) -> set[str]:
    """Write those of the new workflows in whose place there is nothing, and give their generations."""
    if not dialect.takes_many_rows:
        return _insert_one_by_one(connection, dialect, starts)
    statement = dialect.prepared("queued_starts", lambda: _insert_alike(dialect))
    patterns = patterns_of(starts)
    numbers = {id(pattern): number for number, pattern in enumerate(patterns)}
    rows = [
        {
            "workflow_id": one.workflow_id,
            "generation": one.generation,
            "input": one.payload,
            "sequence": one.sequence,
            _PATTERN: numbers[id(one.pattern)],
        }
        for one in starts
    ]
    # What is left out is NULL: most of a row is.
    alike = [
        {_PATTERN: number} | {name: value for name in _ALIKE if (value := getattr(pattern.entry, name)) is not None}
        for number, pattern in enumerate(patterns)
    ]
    return {row[0] for row in statement.execute(connection, {"runs": _to_json(rows), "patterns": _to_json(alike)})}


def _insert_one_by_one(connection: Connection, dialect: Dialect, starts: Sequence[StartAlike]) -> set[str]:
    common = {id(pattern): checkpoints.queued_row(pattern.entry) for pattern in patterns_of(starts)}
    rows = [{**common[id(one.pattern)], **dict(zip(_OWN, one[1:], strict=True))} for one in starts]
    statement = dialect.prepared("queued_start_of_many", lambda: _insert_next(dialect))
    if statement.execute_many(connection, rows) == len(rows):
        return {one.generation for one in starts}
    given = [one.generation for one in starts]
    found = select(WorkflowStatus.generation).where(
        WorkflowStatus.workflow_id.in_([one.workflow_id for one in starts]), WorkflowStatus.generation.in_(given)
    )
    return set(connection.scalars(found))


def _insert_next(dialect: Dialect) -> Any:
    # Without RETURNING, which an executemany does not take.
    inserted = checkpoints.insertion_of_runs(dialect, dialect.one_row(QUEUED_FIELDS), QUEUED_FIELDS)
    return inserted.on_conflict_do_nothing()


def _insert_alike(dialect: Dialect) -> Any:
    """What rows have in common is given once, and joined to them: that is most of their text."""
    rows = dialect.many_rows({**_OWN, _PATTERN: Integer()}, "runs", looked_up=False).alias("runs")
    patterns = dialect.many_rows({**_ALIKE, _PATTERN: Integer()}, "patterns", looked_up=False).alias("patterns")
    columns: dict[str, ColumnElement[Any]] = {
        name: rows.c[name] if name in _OWN else patterns.c[name] for name in QUEUED_FIELDS
    }
    given = select(*(column.label(name) for name, column in columns.items())).select_from(
        rows.join(patterns, rows.c[_PATTERN] == patterns.c[_PATTERN])
    )
    inserted = checkpoints.insertion_of_runs(dialect, given.subquery("given"), QUEUED_FIELDS)
    return inserted.on_conflict_do_nothing().returning(WorkflowStatus.__table__.c.generation)


def _correct(connection: Connection, step: StepEntry, output: str | None, error: str | None) -> None:
    connection.execute(
        update(StepOutput)
        .where(
            StepOutput.workflow_id == step.workflow_id,
            StepOutput.scope == step.scope,
            StepOutput.step_id == step.step_id,
        )
        .values(output=output, error=error)
        .execution_options(synchronize_session=False)
    )


def _key_of(starts: Iterable[StartAlike]) -> Callable[[StartAlike], Any]:
    if any(pattern.entry.deduplication_id is not None for pattern in patterns_of(starts)):
        return lambda start: (start.pattern.entry.deduplication_id or "", start.workflow_id)
    return attrgetter("workflow_id")


def _batches(starts: Iterable[StartAlike]) -> Iterator[list[StartAlike]]:
    batch: list[StartAlike] = []
    size = 0
    for start in starts:
        characters = len(start.payload) + _OTHER_CHARACTERS
        if batch and (len(batch) == _MOST_ROWS or size + characters > _MOST_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(start)
        size += characters
    if batch:
        yield batch


@contextmanager
def _undoable(connection: Connection) -> Iterator[None]:
    """Take back what was done inside if it comes to an error of ours; the transaction goes on."""
    # In SQL, because our own connections begin their transactions in SQL, of which SQLAlchemy knows nothing.
    connection.exec_driver_sql(f"SAVEPOINT {_SAVEPOINT}")
    try:
        yield
    except DBOSError:
        connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        raise
    connection.exec_driver_sql(f"RELEASE SAVEPOINT {_SAVEPOINT}")
