"""Starting many workflows in one transaction, from outside and as one step of a workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from dbos_orm._context import Frame, Run, StepKey
from dbos_orm._flows.effects import Announce, Change, Flow, Outcome
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.queueing import require_place
from dbos_orm._flows.recording import adopt, find_recorded
from dbos_orm._flows.stepping import record_outcome
from dbos_orm._outcomes import Raised, Returned, unwrap
from dbos_orm._store.entries import StepEntry
from dbos_orm._store.starting import Placed, waiting_place
from dbos_orm._store.starting_many import StartAlike, patterns_of, place_all_or_refuse, place_children
from dbos_orm.errors import ConfigurationError, DBOSError, QueueNotFoundError

NAME: Final = "start_many"


def start_many(env: Environment, starts: Sequence[StartAlike]) -> Flow[list[Placed]]:
    """Store new workflows, all of them or none, for whoever claims them.

    Raises:
        QueueNotFoundError, ConfigurationError: one of them has no place to wait.
        ConflictingWorkflowError, WorkflowExistsError, DeduplicationError: another workflow is in the place of one.
    """
    yield from _require_places(env, starts)
    placed = yield from Change(partial(place_all_or_refuse, dialect=env.dialect, starts=starts))
    if isinstance(placed, DBOSError):
        raise placed
    yield from _announce(starts)
    return placed


def start_children(env: Environment, frame: Frame, key: StepKey, starts: Sequence[StartAlike]) -> Flow[list[Placed]]:
    """``start_many`` as one step, which records what came of it; a replay gives the same, and starts nothing."""
    run = frame.run
    digest = env.digest_of(key, [f"{start.pattern.entry.name} {start.payload}" for start in starts], {})
    found = run.recorded(key, NAME, digest)
    if found is not None:
        return _placed(unwrap(env.replay(run, found)))
    run.require_live(NAME)
    try:
        yield from _require_places(env, starts)
    except (QueueNotFoundError, ConfigurationError) as error:
        outcome = yield from record_outcome(env, run, key, NAME, "child", Raised(error), 1, env.instant(), digest)
        return _placed(unwrap(outcome))
    planned = [Placed(start.workflow_id, created=True) for start in starts]
    entry = env.step_entry(run, key, NAME, "child", _encoded(env, planned), digest=digest)
    placed = _placed(unwrap((yield from _record(env, run, entry, starts))))
    yield from _announce(starts)
    return placed


def _record(env: Environment, run: Run, entry: StepEntry, starts: Sequence[StartAlike]) -> Flow[Outcome]:
    verb = partial(
        place_children,
        dialect=env.dialect,
        step=entry,
        starts=starts,
        encode=partial(_encoded, env),
        encode_error=env.codec.encode_error,
    )
    while True:
        placed = yield from Change(verb)
        if isinstance(placed, DBOSError):
            return Raised(placed)
        if placed is not None:
            return Returned(_told(placed))
        # It has ended, or this is the same step once more.
        found = yield from find_recorded(env, run, entry)
        if found is not None:
            adopt(run, entry, found)
            return env.replay(run, found)


def _require_places(env: Environment, starts: Sequence[StartAlike]) -> Flow[None]:
    for pattern in patterns_of(starts):
        yield from require_place(env, pattern.entry)


def _announce(starts: Sequence[StartAlike]) -> Flow[None]:
    for queue, name in dict.fromkeys(waiting_place(pattern.entry) for pattern in patterns_of(starts)):
        yield from Announce(queue, name)


def _told(placed: Sequence[Placed]) -> dict[str, list[Any]]:
    """What is recorded: the IDs, and the positions (from 0) of those that the step has not created."""
    known = [number for number, one in enumerate(placed) if not one.created]
    return {"workflow_ids": [one.workflow_id for one in placed], "known": known}


def _encoded(env: Environment, placed: Sequence[Placed]) -> str:
    return env.codec.encode(_told(placed), root="result")


def _placed(told: Mapping[str, list[Any]]) -> list[Placed]:
    known = set(told["known"])
    return [Placed(one, created=number not in known) for number, one in enumerate(told["workflow_ids"])]
