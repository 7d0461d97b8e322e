"""Workflows that start others in queues in every way, for dropping them at every effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from dbos_orm import DBOS, Debounce
from dbos_orm._workflows import Workflow
from dbos_orm.errors import DeduplicationError, QueueNotFoundError

FOR_EVER = 600


class Journal(Protocol):
    """Notes which steps ran."""

    def note(self) -> int: ...


def register_queued(dbos: DBOS, journal: Journal, scenario: Callable[[Any], None], child: Workflow[[int], str]) -> None:
    """Add the workflows to the scenarios."""

    @dbos.step
    def cancel(workflow_id: str) -> None:
        # In a step: what a workflow records of a cancel is what it found to cancel, which a second time is nothing.
        journal.note()
        child.handle(workflow_id).cancel()

    queue = dbos.queue("tasks")

    @scenario
    @dbos.workflow
    def queued_children() -> list[Any]:
        return [child.options(queue=queue, priority=number).start(number).result() for number in (1, 2)]

    @scenario
    @dbos.workflow
    def deduplicated_children() -> list[Any]:
        once = child.options(queue=queue, deduplication_id=dbos.current.workflow_id)
        first = once.options(delay=FOR_EVER).start(1)
        known = once.options(on_duplicate="return").start(2)
        found = [first.created, known.workflow_id == first.workflow_id, known.created]
        try:
            once.start(3)
        except DeduplicationError as error:
            found.append(error.workflow_id == first.workflow_id)
        first.set_delay(2 * FOR_EVER)
        cancel(first.workflow_id)
        return [*found, once.start(4).result()]

    @scenario
    @dbos.workflow
    def debounced_children() -> list[Any]:
        waiting = child.options(debounce=Debounce(dbos.current.workflow_id, FOR_EVER))
        handles = [waiting.start(1), waiting.start(2)]
        cancel(handles[0].workflow_id)
        return [handle.created for handle in handles]

    @scenario
    @dbos.workflow
    def children_without_a_queue() -> list[str]:
        found = []
        for start in (child.options(queue="missing").start, _starting_many(dbos, child.options(queue="missing"))):
            try:
                start(1)
            except QueueNotFoundError as error:
                found.append(error.queue)
        return found

    @scenario
    @dbos.workflow
    def many_children() -> list[Any]:
        once = child.options(queue=queue, deduplication_id=dbos.current.workflow_id)
        first = once.options(delay=FOR_EVER).start(1)
        known, *new = dbos.start_many(
            [once.options(on_duplicate="return").call(2), child.call(3), child.options(queue=queue).call(4)]
        )
        found = [known.created, known.workflow_id == first.workflow_id, *(handle.result() for handle in new)]
        try:
            dbos.start_many([child.call(5), once.call(6)])
        except DeduplicationError as error:
            found.append(error.workflow_id == first.workflow_id)
        cancel(first.workflow_id)
        return found


def _starting_many(dbos: DBOS, workflow: Any) -> Callable[[int], object]:
    return lambda number: dbos.start_many([workflow.call(number)])
