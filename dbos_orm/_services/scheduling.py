"""Making, changing and asking for schedules at run time: each operation once, for both colours."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy.engine import Connection

from dbos_orm._drivers.binding import Application
from dbos_orm._flows.effects import Announce, Change, Flow, Read
from dbos_orm._flows.environment import Environment
from dbos_orm._options import queue_name
from dbos_orm._queues import Queue
from dbos_orm._registry import RegisteredWorkflow, Registry
from dbos_orm._runtime import Runtime
from dbos_orm._schedule_settings import (
    CatchUp,
    checked_catch_up,
    require_schedulable,
    require_schedule_name,
)
from dbos_orm._services.cron import After, text_timetable
from dbos_orm._services.scheduled_runs import clock_of, insert_runs, require_queue, run_of, workflow_of
from dbos_orm._store import schedules
from dbos_orm._store.entries import RunStart
from dbos_orm._store.schedules import StoredSchedule
from dbos_orm._workflows import AnyWorkflow
from dbos_orm.errors import ConfigurationError, ScheduleExistsError, ScheduleNotFoundError, SerializationError
from dbos_orm.serialization import Codec

_RUNS_AT_ONCE: Final = 500
_MOST_RUNS: Final = 100_000


class Unchanged(enum.Enum):
    """What a change leaves as it is."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class ScheduleDefinition:
    """A schedule to be made at run time: which workflow, given as it is or by its name, starts when.

    ``context`` is a value that is recorded with it, and handed to the workflow as its third argument.
    """

    name: str
    workflow: AnyWorkflow[..., Any] | str
    expression: str
    timezone: str | tzinfo = "UTC"
    queue: Queue | str | None = None
    context: Any = None
    catch_up: CatchUp = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A schedule as it was when somebody looked. It has an ``expression``, or a ``trigger`` that only code can make.

    ``declared``: by code; else it was made at run time. ``next_fire_at`` is None when nothing comes any more.
    """

    name: str
    workflow_name: str
    expression: str | None
    trigger: str | None
    timezone: str
    queue: str | None
    context: Any
    catch_up: str
    declared: bool
    paused: bool
    next_fire_at: datetime | None
    last_fire_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Prepared(NamedTuple):
    """A schedule that is checked and ready to be written."""

    name: str
    values: dict[str, Any]
    after: After


Started: TypeAlias = tuple[str, bool]
"""The ID of a run of a schedule, and whether it was started now; plain, because a workflow records it."""


def prepare(runtime: Runtime, definition: ScheduleDefinition) -> Prepared:
    """Check a definition.

    Raises:
        NotRegisteredError: its workflow is not registered in this application.
        ConfigurationError: a part of it cannot work.
        SerializationError: its context cannot be recorded.
    """
    if not isinstance(definition, ScheduleDefinition):
        raise ConfigurationError(
            "schedule", definition, "a ScheduleDefinition", "write ScheduleDefinition(name, workflow, expression)"
        )
    application = runtime.application
    require_schedule_name(definition.name)
    workflow = _workflow(runtime, definition.workflow)
    require_schedulable(workflow.name, workflow.signature, context=definition.context is not None)
    times = text_timetable(_text(definition.expression), definition.timezone)
    queue = workflow.queue if definition.queue is None else definition.queue
    values = {
        "workflow_name": workflow.name,
        "class_name": workflow.class_name,
        "config_name": workflow.config_name,
        "expression": times.expression,
        "trigger": None,
        "timezone": times.timezone,
        "queue": None if queue is None else queue_name(queue, application.registry),
        "catch_up": checked_catch_up(definition.catch_up),
        **_encoded_context(application.codec, definition.context),
    }
    return Prepared(definition.name, values, times.after)


def prepare_all(runtime: Runtime, definitions: Iterable[ScheduleDefinition]) -> list[Prepared]:
    """Check several, which must have different names; raises as ``prepare``."""
    prepared = [prepare(runtime, definition) for definition in definitions]
    names = [one.name for one in prepared]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError("schedules", name, "each name once", "give one of them another name")
    return sorted(prepared, key=lambda one: one.name)


def checked_changes(
    codec: Codec,
    registry: Registry,
    *,
    expression: str | None,
    timezone: str | tzinfo | None,
    queue: Queue | str | Unchanged | None,
    context: Any,
    catch_up: str | None,
) -> dict[str, Any]:
    """The columns that a change sets; None, or ``UNCHANGED`` where None is a value, leaves one as it is."""
    changes: dict[str, Any] = {}
    if expression is not None:
        changes |= {"expression": text_timetable(_text(expression)).expression, "trigger": None}
    if timezone is not None:
        changes["timezone"] = text_timetable("@daily", timezone).timezone
    if queue is not UNCHANGED:
        changes["queue"] = None if queue is None else queue_name(queue, registry)
    if context is not UNCHANGED:
        changes |= _encoded_context(codec, context)
    if catch_up is not None:
        changes["catch_up"] = checked_catch_up(catch_up)
    return changes


# -- flows ---------------------------------------------------------------------------------------


def listed(env: Environment) -> Flow[list[ScheduleInfo]]:
    """Every schedule, by name."""
    rows = yield from Read(partial(schedules.find, application=env.application))
    return [_info(env.codec, row) for row in rows]


def described(env: Environment, name: str) -> Flow[ScheduleInfo]:
    """One schedule.

    Raises:
        ScheduleNotFoundError: there is none of this name.
    """
    return _info(env.codec, (yield from _found(env, name)))


def create(env: Environment, prepared: Sequence[Prepared], *, replace: bool) -> Flow[list[ScheduleInfo]]:
    """Make all of them, or none; with ``replace`` those that exist are changed to what is given, and stay paused.

    Raises:
        ScheduleExistsError: one of them exists, and is not to be replaced.
        QueueNotFoundError: one of them has a queue that does not exist.
    """
    rows = yield from Change(_Creation(env, prepared, replace=replace))
    return [_info(env.codec, row) for row in rows]


class _Creation:
    """Writes schedules, once or again: what an earlier try of this very creation may have written is no conflict."""

    def __init__(self, env: Environment, prepared: Sequence[Prepared], *, replace: bool) -> None:
        self._env = env
        self._prepared = prepared
        self._replace = replace
        self._was_tried = False

    def __call__(self, connection: Connection) -> list[StoredSchedule]:
        env, was_tried, self._was_tried = self._env, self._was_tried, True
        for queue in sorted({one.values["queue"] for one in self._prepared} - {None}):
            require_queue(connection, env.registry, env.application, queue)
        names = [one.name for one in self._prepared]
        stored = {row.name: row for row in schedules.find(connection, env.application, names, lock=True)}
        now = schedules.present(connection, env.dialect)
        for one in self._prepared:
            row = stored.get(one.name)
            times = {"next_fire_at": one.after(now)}
            if row is None:
                values = {**one.values, **times}
                if not schedules.insert(connection, env.dialect, env.application, one.name, values):
                    raise ScheduleExistsError(one.name)
                continue
            changed = {name: value for name, value in one.values.items() if getattr(row, name) != value}
            if (changed and not self._replace) or not (self._replace or was_tried):
                raise ScheduleExistsError(one.name)
            if changed:
                retimed = times if changed.keys() & {"expression", "timezone"} else {}
                schedules.change(connection, env.dialect, env.application, one.name, {**changed, **retimed})
        return schedules.find(connection, env.application, names)


def change(
    env: Environment, name: str, decide: Callable[[StoredSchedule, datetime], dict[str, Any]]
) -> Flow[ScheduleInfo]:
    """Change a schedule by what ``decide`` says of it and the present; raises as ``described``."""

    def verb(connection: Connection) -> StoredSchedule | None:
        rows = schedules.find(connection, env.application, [name], lock=True)
        if not rows:
            return None
        values = decide(rows[0], schedules.present(connection, env.dialect))
        queue = values.get("queue")
        if queue is not None:
            require_queue(connection, env.registry, env.application, queue)
        if values:
            schedules.change(connection, env.dialect, env.application, name, values)
        return schedules.find(connection, env.application, [name])[0]

    row = yield from Change(verb)
    if row is None:
        raise (yield from _missing(env, name))
    return _info(env.codec, row)


def paused(row: StoredSchedule, _now: datetime) -> dict[str, Any]:
    """For ``change``: nothing is run any more."""
    return {} if row.paused else {"paused": True}


def resumed(env: Environment) -> Callable[[StoredSchedule, datetime], dict[str, Any]]:
    """For ``change``: it goes on with the next slot; what was missed is not caught up."""

    def decide(row: StoredSchedule, now: datetime) -> dict[str, Any]:
        return {"paused": False, "next_fire_at": _clock(env, row)(now)} if row.paused else {}

    return decide


def changed(env: Environment, changes: dict[str, Any]) -> Callable[[StoredSchedule, datetime], dict[str, Any]]:
    """For ``change``: other columns, and the next slot by a new time."""

    def decide(row: StoredSchedule, now: datetime) -> dict[str, Any]:
        after = row._replace(**changes)
        if after.expression is None and "timezone" in changes:
            raise ConfigurationError("timezone", after.timezone, "no zone beside a trigger of code", "change the code")
        workflow = workflow_of(env.registry, row)
        require_schedulable(workflow.name, workflow.signature, context=after.context is not None)
        times = changes.keys() & {"expression", "timezone"}
        return {**changes, "next_fire_at": _clock(env, after)(now)} if times else changes

    return decide


def delete(env: Environment, name: str) -> Flow[None]:
    """Remove a schedule; raises as ``described``."""
    yield from _found(env, name)
    yield from Change(partial(schedules.remove, application=env.application, name=name))


def trigger(env: Environment, application: Application, name: str, suffix: str | None) -> Flow[list[Started]]:
    """Start one run of a schedule now, paused or not; raises as ``described``."""
    row = yield from _found(env, name)
    now = yield from Read(partial(schedules.present, dialect=env.dialect))
    workflow_id = f"sched-{env.application}-{name}-manual-{suffix or uuid.uuid4()}"
    return (yield from _start(env, [run_of(application, row, now, now, workflow_id)]))


def backfill(
    env: Environment, application: Application, name: str, start: datetime, end: datetime
) -> Flow[list[Started]]:
    """Start the runs of every slot from ``start`` to before ``end`` that has passed; raises as ``described``."""
    row = yield from _found(env, name)
    now = yield from Read(partial(schedules.present, dialect=env.dialect))
    after, slots = _clock(env, row), []
    # Slots are in whole microseconds at the least, so that none lies between.
    slot = after(start - datetime.resolution)
    while slot is not None and slot < end and slot <= now:
        slots.append(slot)
        if len(slots) > _MOST_RUNS:
            raise ConfigurationError(
                "end", end, f"a time with at most {_MOST_RUNS} slots before it", "back-fill in several calls"
            )
        slot = after(slot)
    started: list[Started] = []
    for begin in range(0, len(slots), _RUNS_AT_ONCE):
        batch = slots[begin : begin + _RUNS_AT_ONCE]
        started += yield from _start(env, [run_of(application, row, each, now) for each in batch])
    return started


def _start(env: Environment, entries: Sequence[RunStart]) -> Flow[list[Started]]:
    created = yield from Change(partial(insert_runs, dialect=env.dialect, entries=entries))
    for entry in entries[:1]:
        if entry.queue is not None:
            yield from Announce(entry.queue, entry.name)
    return [(entry.workflow_id, is_new) for entry, is_new in zip(entries, created, strict=True)]


def _found(env: Environment, name: str) -> Flow[StoredSchedule]:
    rows = yield from Read(partial(schedules.find, application=env.application, names=[name]))
    if not rows:
        raise (yield from _missing(env, name))
    return rows[0]


def _missing(env: Environment, name: str) -> Flow[ScheduleNotFoundError]:
    rows = yield from Read(partial(schedules.find, application=env.application))
    return ScheduleNotFoundError(name, [row.name for row in rows])


def _clock(env: Environment, row: StoredSchedule) -> After:
    after = clock_of(env.registry, row)
    if after is None:
        raise ConfigurationError(
            "schedule",
            row.name,
            f"one whose trigger is known here, not {row.trigger!r}",
            "do it in a process whose code declares the schedule",
        )
    return after


def _info(codec: Codec, row: StoredSchedule) -> ScheduleInfo:
    context: object = row.context
    if row.context is not None:
        # What this process cannot read is shown as it is stored, and hides no other schedule.
        with suppress(SerializationError):
            context = codec.decode(row.context, row.serializer)
    facts = {field.name: getattr(row, field.name) for field in fields(ScheduleInfo)}
    return ScheduleInfo(**{**facts, "context": context})


def _workflow(runtime: Runtime, given: object) -> RegisteredWorkflow:
    if isinstance(given, AnyWorkflow):
        return given.scheduled_by(runtime)
    if not isinstance(given, str):
        raise ConfigurationError("workflow", given, "a workflow, or the name of one", "decorate it with @dbos.workflow")
    workflow = runtime.application.registry.workflow(given)
    if workflow.is_method:
        raise ConfigurationError("workflow", given, "a function, or a method of an instance", "pass instance.method")
    return workflow


def _text(expression: object) -> str:
    if not isinstance(expression, str):
        raise ConfigurationError(
            "expression", expression, "cron text", "a trigger belongs into code: @dbos.scheduled(trigger)"
        )
    return expression


def _encoded_context(codec: Codec, context: object) -> dict[str, str | None]:
    text = None if context is None else codec.encode(context, root="context")
    return {"context": text, "serializer": codec.name}
