"""Starting a child that waits in a queue: the queue must exist, and another workflow may be in the child's place."""

from __future__ import annotations

from functools import partial

from dbos_orm._context import RecordedStep, Run, StepKey
from dbos_orm._flows.effects import Change, Flow
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.recording import adopt, find_recorded
from dbos_orm._flows.stepping import record_outcome
from dbos_orm._outcomes import Raised, Returned, unwrap
from dbos_orm._store.entries import INTERNAL_QUEUE, RunStart, StepEntry
from dbos_orm._store.starting import (
    Placed,
    RecordedChild,
    Start,
    debounce,
    fill_in_and_load,
    place_child,
    require_queue,
)
from dbos_orm.errors import ConfigurationError, QueueNotFoundError


def require_place(env: Environment, entry: RunStart) -> Flow[None]:
    """Return if the queue of a new workflow exists; it is looked up once. Raises as ``require_queue``."""
    if entry.queue is None or entry.queue == INTERNAL_QUEUE:
        return
    known = dict(env.queues)  # which the tick renews
    if entry.queue not in known:
        declared = env.registry.queue(entry.queue)
        settings = [] if declared is None else [declared]
        # Perhaps no launch has filled in its row yet, and without one nobody may claim from it.
        verb = partial(fill_in_and_load, dialect=env.dialect, application=env.application, settings=settings)
        known = yield from Change(verb)
        env.queues.update(known)
    require_queue(entry, known, env.registry)


def start_debounced(env: Environment, entry: RunStart) -> Flow[Placed]:
    """Store a workflow that waits, or give its arguments to the one that waits with its key."""
    return (yield from Change(partial(debounce, dialect=env.dialect, entry=entry)))


def require_place_of_child(env: Environment, run: Run, key: StepKey, child: RunStart, digest: str | None) -> Flow[None]:
    """``require_place`` in a workflow: an error is recorded, because the queue may exist when it is replayed."""
    try:
        yield from require_place(env, child)
    except (QueueNotFoundError, ConfigurationError) as error:
        outcome = yield from record_outcome(env, run, key, child.name, "child", Raised(error), 1, env.instant(), digest)
        unwrap(outcome)


def record_chosen_child(env: Environment, run: Run, entry: StepEntry, child: Start) -> Flow[Returned[str] | Raised]:
    """Start a child that has a deduplication ID, or find the one in its place, as a step.

    Gives the ID of the workflow that it got, or the error that is recorded.
    """
    encode = env.codec.encode_error
    verb = partial(place_child, dialect=env.dialect, step=entry, child=child, encode_error=encode)
    recorded: RecordedChild | RecordedStep | None = None
    while recorded is None:
        recorded = yield from Change(verb)
        if recorded is None:
            # It has ended, or this is the same step once more.
            recorded = yield from find_recorded(env, run, entry)
            if recorded is not None:
                adopt(run, entry, recorded)
    if recorded.error is not None:
        return Raised(env.codec.decode_error(recorded.error, entry.serializer))
    return Returned(str(recorded.child_id))
