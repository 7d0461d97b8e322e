"""Starting a workflow of a queue in which nobody waits, in the process that has a slot for it: no claim is needed."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dbos_orm._context import Run
from dbos_orm._flows.effects import Announce, Flow, RunBody, Spawn, Write, WriteResult
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.operating import Started
from dbos_orm._flows.running import start
from dbos_orm._registry import RegisteredWorkflow
from dbos_orm._store.entries import RunStart
from dbos_orm._store.starting import Start


class Places(Protocol):
    """The slots of this process, for whoever starts what could begin here at once."""

    def take(self, run: Run, workflow: RegisteredWorkflow, queue: str) -> bool:
        """Give a new run a slot of the queue, if one is free and nobody is known to wait for it."""

    def leave(self, run: Run) -> None:
        """Take the slot back from a run that does not begin."""


class Offer(NamedTuple):
    """A slot that was taken for a run, and the row of a workflow that has its owner from the start.

    The row is written only if the queue is open and nobody waits in it.
    """

    entry: RunStart
    run: Run
    places: Places


def start_at_once(env: Environment, start_queued: Start, body: RunBody, offer: Offer) -> Flow[Started]:
    """Store a workflow and run it in the background; where others are before it, it waits like them.

    ``body`` shares no object with who started it. ``start_queued`` has a generation of its own.
    """
    entry, run, is_begun, existing = offer.entry, offer.run, False, None
    try:
        is_begun = (yield from Write(entry, starts=run)) is WriteResult.WRITTEN
        if not is_begun:
            existing = yield from start(env, start_queued, None)
            # The answer to the first write may have been lost.
            is_begun = existing is not None and existing.generation == entry.generation
        if is_begun:
            yield from Spawn(run, body)
            return Started(entry.workflow_id, created=True, is_ours=True)
    except GeneratorExit:
        env.drop(run)
        raise
    finally:
        if not is_begun:
            offer.places.leave(run)
    if existing is None:
        yield from Announce(str(entry.queue), entry.name)
        return Started(entry.workflow_id, created=True, is_ours=True)
    return Started(existing.workflow_id, created=False, is_ours=False)
