"""Durable operations that the library itself provides to a workflow: children, results, sleep, time."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

from dbos_orm._context import Frame, RecordedStep, Run, StepKey
from dbos_orm._flows.effects import Effect, Flow, Outcome, Pause, Read
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.queueing import record_chosen_child, require_place_of_child
from dbos_orm._flows.recording import record_step
from dbos_orm._flows.running import await_outcome
from dbos_orm._flows.stepping import record_outcome
from dbos_orm._outcomes import Raised, Returned, unwrap
from dbos_orm._store.entries import Kind, RunStart
from dbos_orm._store.history import find_run
from dbos_orm._store.starting import Start, require_same_workflow, warn_of_other_arguments
from dbos_orm._time_limits import TimeLimit
from dbos_orm.errors import DBOSError, NonDeterministicError, WorkflowExistsError

_MICROSECONDS: Final = 1_000_000
SLEEP_NAME: Final = "sleep"


class Started(NamedTuple):
    """What a start came to: ``created`` by it, now or before a replay; ``is_ours``: now, so that it is to be run."""

    workflow_id: str
    created: bool
    is_ours: bool


def start_child(
    env: Environment,
    frame: Frame,
    key: StepKey,
    start: Start,
    child_run: Run | None,
    *,
    given_id: bool,
    digest: str | None = None,
) -> Flow[Started]:
    """Start a workflow as a step of this one.

    The child's row and the record of it in the parent are one write: there is never one without the other.
    ``given_id``: the caller chose the ID, so that somebody else may have started it.
    """
    run, child = frame.run, start.entry
    found = run.recorded(key, child.name, digest)
    is_new = found is None
    if found is None:
        run.require_live(child.name)
        yield from require_place_of_child(env, run, key, child, digest)
        entry = env.step_entry(run, key, child.name, "child", digest=digest)
        entry.child_id = child.workflow_id
        if child.deduplication_id is None:
            entry.child = child
            is_new = (yield from record_step(env, run, entry, child_run)) is None
            child_id = child.workflow_id
        else:
            child_id = unwrap((yield from record_chosen_child(env, run, entry, start)))
    else:
        child_id = _recorded_child(env, run, key, found, child)
    if child_id != child.workflow_id:
        return Started(child_id, created=False, is_ours=False)
    if not given_id:
        return Started(child_id, created=True, is_ours=is_new)
    existing = yield from Read(partial(find_run, workflow_id=child_id), run)
    if existing is None or (existing.parent_id, existing.parent_step) == (run.workflow_id, key.path):
        is_ours = is_new and existing is not None and existing.generation == child.generation
        return Started(child_id, created=True, is_ours=is_ours)
    require_same_workflow(existing, child)
    if start.on_existing == "raise":
        raise WorkflowExistsError(child_id)
    if found is None:
        warn_of_other_arguments(existing, child)
    return Started(child_id, created=False, is_ours=False)


def _recorded_child(env: Environment, run: Run, key: StepKey, found: RecordedStep, child: RunStart) -> str:
    """The ID of the child that a step started before; raises what kept it from that."""
    if found.error is not None:
        unwrap(env.replay(run, found))
    if found.child_id is None or (found.child_id != child.workflow_id and child.deduplication_id is None):
        raise NonDeterministicError(
            run.workflow_id,
            key.path,
            f"{found.name} {found.child_id!r}",
            f"{child.name} {child.workflow_id!r}",
        )
    return found.child_id


def await_in_workflow(
    env: Environment, frame: Frame, key: StepKey, workflow_id: str, seconds: float | None
) -> Flow[Outcome]:
    """Await another workflow as a step: a replay gets the same outcome, even if that workflow was restarted since."""
    return (
        yield from recorded(env, frame, key, "result", "result", lambda: _outcome(env, frame.run, workflow_id, seconds))
    )


def recorded(
    env: Environment,
    frame: Frame,
    key: StepKey,
    name: str,
    kind: Kind,
    produce: Callable[[], Generator[Effect[Any], Any, Outcome]],
) -> Flow[Outcome]:
    """Give the recorded outcome of an operation, or what the flow ``produce()`` gives, recorded."""
    run = frame.run
    found = run.recorded(key, name)
    if found is not None:
        return env.replay(run, found)
    run.require_live(name)
    started_at = env.instant()
    outcome = yield from produce()
    return (yield from record_outcome(env, run, key, name, kind, outcome, 1, started_at))


def value_of(produce: Callable[[], Any]) -> Flow[Outcome]:
    """A flow for ``recorded`` that needs nothing from outside."""
    yield from ()
    return Returned(produce())


def sleep(env: Environment, frame: Frame, key: StepKey | None, seconds: float) -> Flow[None]:
    """Wait until an instant that is fixed when the workflow first gets here; a restart waits for the rest.

    Inside a step (``key`` is None) nothing is recorded: the step is what would be repeated. Its own time limit
    ends the wait.
    """
    run = frame.run
    if key is None:
        yield from _sleep_in_step(run, seconds, None if frame.step is None else frame.step.limit)
        return
    found = run.recorded(key, SLEEP_NAME)
    if found is None:
        run.require_live(SLEEP_NAME)
        delay = round(max(seconds, 0.0) * _MICROSECONDS)
        found = yield from record_step(env, run, replace(env.step_entry(run, key, SLEEP_NAME, "sleep"), delay=delay))
    left = seconds
    if found is not None:
        left = (found.remaining or 0.0) - (env.clock.monotonic() - found.loaded_at)
    yield from Pause(left, run)
    run.require_live(SLEEP_NAME)


def _sleep_in_step(run: Run, seconds: float, limit: TimeLimit | None) -> Flow[None]:
    left = math.inf if limit is None else limit.left
    yield from Pause(min(seconds, left), run)
    if limit is not None and (limit.is_over or left < seconds):
        raise limit.error()


def _outcome(env: Environment, run: Run, workflow_id: str, seconds: float | None) -> Flow[Outcome]:
    try:
        return (yield from await_outcome(env, workflow_id, seconds=seconds, run=run))
    except (DBOSError, TimeoutError) as error:
        return Raised(error)
