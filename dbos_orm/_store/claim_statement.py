"""The statement of a claim: which rows are picked, in which order, and what is given of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from dbos_orm._dialects import Dialect
from dbos_orm.models import Executor, Queue, RateStart, StepAttempt, StepOutput, WorkflowStatus

_ENQUEUED: Final[ColumnElement[str]] = literal_column("'ENQUEUED'")
_PENDING: Final[ColumnElement[str]] = literal_column("'PENDING'")
_CANCELLED: Final[ColumnElement[str]] = literal_column("'CANCELLED'")
_STATUS: Final = WorkflowStatus.__table__


Kinds: TypeAlias = str
"""Of a share: i for the internal queue, q for another, k for a partition; then f or m for each function or method."""


class ClaimForm(NamedTuple):
    """What the text of a claim depends on."""

    shares: tuple[Kinds, ...]
    is_keyed: bool = False
    is_locked: bool = False
    has_concurrency: bool = False
    has_rate: bool = False
    is_durable: bool = True


def given(name: str, type_: Any = None) -> ColumnElement[Any]:
    """A parameter of the statement; a text, unless ``type_`` says otherwise."""
    kind = Text() if type_ is None else type_
    return cast(bindparam(name, type_=kind), kind)


class ClaimStatement:
    """The statement of one form."""

    def __init__(self, dialect: Dialect, form: ClaimForm, names: Sequence[int], stamps: int) -> None:
        self._dialect = dialect
        self._form = form
        self._names = list(names)
        self._stamps = stamps

    def build(self) -> Any:
        """The UPDATE that claims, and returns ``claimed_columns``."""
        dialect, now = self._dialect, self._dialect.now()
        stamped = case(
            *((_STATUS.c.name == given(f"name_{each}"), given(f"version_{each}")) for each in range(self._stamps))
        )
        relaxed = [] if self._form.is_durable else [dialect.relaxed_commit()]
        return (
            update(_STATUS)
            .where(dialect.is_one_of(_STATUS.c.workflow_id, self._picked()), *relaxed)
            .values(
                status=_PENDING,
                executor_id=given("executor_id"),
                owner_token=given("owner_token"),
                version=func.coalesce(_STATUS.c.version, stamped),
                started_at=func.coalesce(_STATUS.c.started_at, now),
                deadline=_first_deadline(dialect),
                updated_at=now,
            )
            .returning(*claimed_columns(dialect))
        )

    def _picked(self) -> Select[Any]:
        """The IDs: of each share in its order, and of the shares by turns."""
        names, branches = iter(self._names), []
        for place, kinds in enumerate(self._form.shares):
            if self._form.is_keyed:
                branches.append(self._branch(place, self._is_any(place, kinds[1:], names), kinds[0]))
                continue
            for number, kind in enumerate(kinds[1:]):
                name = next(names)
                is_it = self._is_one(place, number, kind, name)
                branches.append(self._branch(place, (*is_it, _STATUS.c.version.is_(None)), kinds[0]))
                branches.append(self._branch(place, (*is_it, _STATUS.c.version == given(f"version_{name}")), kinds[0]))
        waiting = union_all(*branches).subquery("waiting")
        columns: list[Any] = [waiting, _turn(waiting).label("turn")]
        if self._form.has_rate:
            columns.append(_turn(waiting, waiting.c.has_start).label("start"))
        ranked = select(*columns).subquery("ranked")
        within = [ranked.c.turn <= ranked.c.quota]
        if self._form.has_concurrency:
            within.append(ranked.c.turn <= ranked.c.room)
        if self._form.has_rate:
            within.append(or_(ranked.c.has_start, ranked.c.start <= ranked.c.starts))
        order = (ranked.c.turn, ranked.c.place)
        return select(ranked.c.workflow_id).where(*within).order_by(*order).limit(given("free", Integer()))

    def _is_one(self, place: int, number: int, kind: str, name: int) -> tuple[ColumnElement[bool], ...]:
        return (_STATUS.c.name == given(f"name_{name}"), *_is_on(place, number, kind))

    def _is_any(self, place: int, kinds: str, names: Any) -> tuple[ColumnElement[bool], ...]:
        """What a process can run of one partition: behind an expression, so that the index of partitions is used."""
        nothing = literal_column("''", Text)
        kinds_here = []
        for number, kind in enumerate(kinds):
            name = next(names)
            version = given(f"version_{name}")
            is_named = (_STATUS.c.name + nothing) == given(f"name_{name}")
            kinds_here.append(is_named & (func.coalesce(_STATUS.c.version, version) == version))
            for condition in _is_on(place, number, kind):
                kinds_here[-1] &= condition
        return (or_(*kinds_here),)

    def _branch(self, place: int, conditions: tuple[ColumnElement[bool], ...], where: str) -> Select[Any]:
        queue, limit = given(f"queue_{place}"), given(f"limit_{place}", Integer())
        own = [_STATUS.c.status == _ENQUEUED, _STATUS.c.application == given("application"), _STATUS.c.queue == queue]
        if self._form.is_keyed:
            key = _STATUS.c.partition_key
            own.append(key == given(f"key_{place}") if where == "k" else key.is_(None))
        if where != "i" and not self._form.is_locked:
            own.append(is_open(given("application"), queue))
        leading = _STATUS.c.partition_key if self._form.is_keyed else _STATUS.c.version
        found = (
            select(_STATUS.c.workflow_id, _STATUS.c.priority, _STATUS.c.sequence)
            .where(*own, *conditions)
            # What leads the index leads here, although it is one value: the planner would sort what IS NULL.
            .order_by(leading, _STATUS.c.priority, _STATUS.c.sequence)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .subquery()
        )
        columns: list[Any] = [*found.c, literal_column(str(place), Integer).label("place"), limit.label("quota")]
        partition = given(f"key_{place}") if where == "k" else None
        if self._form.has_concurrency:
            columns.append(
                (given("concurrency", Integer()) - _running(queue, partition, self._form.is_keyed)).label("room")
            )
        if self._form.has_rate:
            has_start = exists().where(RateStart.workflow_id == found.c.workflow_id)
            columns.append(has_start.label("has_start"))
            starts = _starts(self._dialect, queue, partition, self._form.is_keyed)
            columns.append((given("rate_limit", Integer()) - starts).label("starts"))
        return select(*columns)


def _turn(waiting: Any, *more: Any) -> ColumnElement[int]:
    return func.row_number().over(
        partition_by=(waiting.c.place, *more), order_by=(waiting.c.priority, waiting.c.sequence)
    )


def _is_on(place: int, number: int, kind: str) -> tuple[ColumnElement[bool], ...]:
    if kind == "f":
        return (_STATUS.c.class_name.is_(None),)
    return (
        _STATUS.c.class_name == given(f"class_{place}_{number}"),
        _STATUS.c.config_name == given(f"config_{place}_{number}"),
    )


def is_open(application: ColumnElement[str], queue: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether the queue may be taken from without locking its row."""
    return exists().where(
        Queue.application == application,
        Queue.name == queue,
        ~Queue.paused,
        ~Queue.partitioned,
        Queue.concurrency.is_(None),
        Queue.rate_limit.is_(None),
    )


def _running(queue: ColumnElement[str], key: ColumnElement[str] | None, is_keyed: bool) -> ColumnElement[int]:
    """How many slots are taken. A cancelled run keeps its slot until its owner lets go, or is dead."""
    own = [_STATUS.c.application == given("application"), _STATUS.c.queue == queue]
    if is_keyed:
        own.append(_STATUS.c.partition_key.is_(None) if key is None else _STATUS.c.partition_key == key)
    living = exists().where(Executor.executor_id == _STATUS.c.executor_id, Executor.expired_at.is_(None))
    running = select(func.count()).select_from(_STATUS).where(_STATUS.c.status == _PENDING, *own)
    ending = (
        select(func.count())
        .select_from(_STATUS)
        .where(_STATUS.c.status == _CANCELLED, _STATUS.c.owner_token.is_not(None), living, *own)
    )
    return running.scalar_subquery() + ending.scalar_subquery()


def _starts(
    dialect: Dialect, queue: ColumnElement[str], key: ColumnElement[str] | None, is_keyed: bool
) -> ColumnElement[int]:
    own = [RateStart.application == given("application"), RateStart.queue == queue]
    if is_keyed:
        own.append(RateStart.partition_key.is_(None) if key is None else RateStart.partition_key == key)
    in_window = RateStart.started_at > window_begins(dialect)
    return select(func.count()).select_from(RateStart).where(in_window, *own).scalar_subquery()


def window_begins(dialect: Dialect) -> ColumnElement[Any]:
    """Where the window of a rate limit begins that ends now; its length is the (negative) parameter ``window``."""
    # In a SELECT of its own it is asked once, and an index can be searched with it.
    return select(dialect.plus_microseconds(dialect.now(), given("window", BigInteger()))).scalar_subquery()


def insert_rate_starts(dialect: Dialect) -> Any:
    """Writes down the starts of one claim, except of those that have theirs."""
    claimed = (
        select(_STATUS.c.workflow_id, _STATUS.c.owner_token, _STATUS.c.application, _STATUS.c.queue)
        .add_columns(_STATUS.c.partition_key, dialect.now())
        .where(
            _STATUS.c.status == _PENDING,
            _STATUS.c.application == given("application"),
            _STATUS.c.queue == given("queue"),
            _STATUS.c.owner_token == given("owner_token"),
            ~exists().where(RateStart.workflow_id == _STATUS.c.workflow_id),
        )
    )
    columns = ["workflow_id", "owner_token", "application", "queue", "partition_key", "started_at"]
    inserted = dialect.insert(RateStart.__table__).from_select(columns, claimed, include_defaults=False)
    return inserted.returning(RateStart.workflow_id)


def _first_deadline(dialect: Dialect) -> ColumnElement[Any]:
    """The end of the timeout, which counts from the first claim, unless the deadline is earlier."""
    ends = dialect.plus_microseconds(dialect.now(), _STATUS.c.timeout)
    return case(
        (_STATUS.c.started_at.is_not(None) | _STATUS.c.timeout.is_(None), _STATUS.c.deadline),
        (_STATUS.c.deadline.is_(None) | (ends < _STATUS.c.deadline), ends),
        else_=_STATUS.c.deadline,
    )


def was_begun() -> ColumnElement[bool]:
    """Whether somebody may have run the workflow before its last claim."""
    # Who hands a run over without counting it puts it into the queue again.
    return or_(_STATUS.c.recovery_attempts > 0, func.coalesce(_STATUS.c.enqueued_at > _STATUS.c.started_at, False))


def claimed_columns(dialect: Dialect) -> list[Any]:
    """The fields of a ``ClaimedRun``, and behind them what they are sorted by."""
    has_history = or_(
        exists().where(StepOutput.workflow_id == _STATUS.c.workflow_id),
        exists().where(StepAttempt.workflow_id == _STATUS.c.workflow_id),
    )
    return [
        _STATUS.c.workflow_id,
        _STATUS.c.name,
        _STATUS.c.class_name,
        _STATUS.c.config_name,
        cast(_STATUS.c.input, Text),
        _STATUS.c.serializer,
        _STATUS.c.parent_id,
        _STATUS.c.deadline,
        dialect.seconds_until(_STATUS.c.deadline),
        _STATUS.c.recovery_attempts,
        _STATUS.c.generation,
        has_history,
        was_begun(),
        _STATUS.c.queue,
        _STATUS.c.partition_key,
        _STATUS.c.priority,
        _STATUS.c.sequence,
    ]
