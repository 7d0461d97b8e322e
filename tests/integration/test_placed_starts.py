"""What is started in a queue in which nobody waits begins at once, in the process that started it, without a claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from dbos_orm import DBOS, AsyncDBOS, Config, RateLimit
from dbos_orm._flows.effects import WriteResult
from dbos_orm._queue_control import Queues
from dbos_orm._store.entries import RunStart
from dbos_orm._workflows import Workflow
from tests.databases import TestDatabase
from tests.integration.queued import bound, row_of
from tests.integration.shop import Held, launched, launched_async
from tests.processes import eventually

QUIET = Config(tick=3600)
"""What another process changes in a queue is not heard of here, unless it tells."""

Change = Callable[[Queues], object]


class Writes:
    """Notes the starts that are written, and what became of each; answers can be lost."""

    def __init__(self, dbos: DBOS | AsyncDBOS, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[bool, WriteResult]] = []
        self.loses_answers = False
        committer = dbos._runtime.bound("test").committer
        write = committer.write

        def noting(entry: Any, *rest: Any) -> WriteResult:
            result = write(entry, *rest)
            if isinstance(entry, RunStart):
                self.seen.append((entry.owner_token is not None, result))
                if self.loses_answers and entry.owner_token is not None:
                    return WriteResult.STALLED
            return result

        monkeypatch.setattr(committer, "write", noting)


def doubling(dbos: DBOS) -> Workflow[[int], int]:
    @dbos.workflow(queue=dbos.queue("mail", worker_concurrency=2))
    def double(number: int) -> int:
        return 2 * number

    return double


@contextmanager
def relaunched(database: TestDatabase) -> Iterator[tuple[DBOS, Workflow[[int], int]]]:
    """An application that knows its queue from its launch on, and hears of no change."""
    with launched(database, config=QUIET) as dbos:
        double = doubling(dbos)
        dbos.shutdown()
        dbos.launch()
        yield dbos, double


@contextmanager
def deaf(dbos: DBOS) -> Iterator[None]:
    """Meanwhile the application takes no notice of what is in the queues; afterwards it looks at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dbos._runtime.places, "see", lambda *_: False)
        yield
    look = dbos._runtime.bound("test").hints.look_everywhere
    assert look is not None
    look()


PLACED = (True, WriteResult.WRITTEN)
REFUSED = (True, WriteResult.REFUSED)
QUEUED = (False, WriteResult.WRITTEN)


def test_a_start_in_an_empty_queue_needs_no_claim(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    with relaunched(database) as (dbos, double):
        writes = Writes(dbos, monkeypatch)
        handle = double.options(timeout=60).start(21)
        assert handle.result() == 42
        assert writes.seen == [PLACED]
        row = row_of(database, handle.workflow_id)
        assert (row.queue, row.version, row.recovery_attempts) == ("mail", double.version, 0)
        assert row.enqueued_at is None, "it never waited"
        assert row.deadline is not None
        assert row.started_at is not None
        assert abs(row.deadline - row.started_at - timedelta(seconds=60)) < timedelta(seconds=1)


async def test_a_coroutine_begins_at_once_too(database: TestDatabase) -> None:
    async with launched_async(database, config=QUIET) as dbos:

        @dbos.workflow(queue=dbos.queue("mail"))
        async def double(number: int) -> int:
            return 2 * number

        await dbos.shutdown()
        await dbos.launch()
        handle = await double.start(21)
        assert await handle.result() == 42
        assert row_of(database, handle.workflow_id).enqueued_at is None, "it never waited"


def test_slots_of_a_process_hold_for_what_begins_at_once(database: TestDatabase) -> None:
    held = Held()
    with launched(database) as dbos:

        @dbos.workflow(queue=dbos.queue("mail", worker_concurrency=2))
        def wait(number: int) -> int:
            held.hold()
            return number

        dbos.shutdown()
        dbos.launch()
        handles = [wait.start(number) for number in range(5)]
        eventually(lambda: dbos.queues.get("mail").running == 2)
        assert dbos.queues.get("mail").depth == 3
        held.release.set()
        assert [handle.result() for handle in handles] == list(range(5))


CHANGES: dict[str, tuple[Change, Change]] = {
    "paused": (lambda queues: queues.pause("mail"), lambda queues: queues.resume("mail")),
    "limited": (lambda queues: queues.set("mail", concurrency=2), lambda queues: None),
    "given a rate": (lambda queues: queues.set("mail", rate_limit=RateLimit(5, 60)), lambda queues: None),
}
"""What another process does to the queue, and what lets a workflow begin then."""


@pytest.mark.parametrize("name", CHANGES)
def test_a_queue_that_was_changed_meanwhile_takes_no_start(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    change, release = CHANGES[name]
    with relaunched(database) as (dbos, double), bound(database) as other:
        writes = Writes(dbos, monkeypatch)
        with deaf(dbos):
            change(other.queues)
            handle = double.start(21)
            assert writes.seen == [REFUSED, QUEUED]
            assert row_of(database, handle.workflow_id).status == "ENQUEUED"
        release(dbos.queues)
        assert handle.result() == 42


def test_those_who_wait_are_before_a_new_start(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    with relaunched(database) as (dbos, double):
        writes = Writes(dbos, monkeypatch)
        # Its name is not registered in this process: it stays where it is.
        with bound(database) as other:

            @other.workflow(queue=other.queue("mail"))
            def elsewhere() -> None:
                pass

            elsewhere.start()
        with deaf(dbos):
            handle = double.start(21)
            assert writes.seen == [REFUSED, QUEUED]
        assert handle.result() == 42


def test_a_known_id_gives_the_workflow_that_has_it(database: TestDatabase) -> None:
    with relaunched(database) as (dbos, double):
        first = double.options(workflow_id="once").start(21)
        again = double.options(workflow_id="once").start(21)
        assert (first.created, again.created) == (True, False)
        assert again.result() == 42
        assert dbos.queues.get("mail").running == 0


def test_a_start_whose_answer_was_lost_runs_once(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    with launched(database, config=QUIET) as dbos:
        calls: list[int] = []

        @dbos.workflow(queue=dbos.queue("mail"))
        def note(number: int) -> int:
            calls.append(number)
            return number

        dbos.shutdown()
        dbos.launch()
        writes = Writes(dbos, monkeypatch)
        writes.loses_answers = True
        handle = note.start(21)
        assert handle.created
        assert handle.result() == 21
        assert calls == [21]
        assert writes.seen == [PLACED, (False, WriteResult.REFUSED)]
        assert row_of(database, handle.workflow_id).recovery_attempts == 0


def test_a_start_that_cannot_be_written_leaves_its_slot(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relaunched(database) as (dbos, double):
        committer = dbos._runtime.bound("test").committer

        def fail(*_: object) -> WriteResult:
            raise RuntimeError("no disk")

        with monkeypatch.context() as patch:
            patch.setattr(committer, "write", fail)
            for _ in range(3):
                with pytest.raises(RuntimeError, match="no disk"):
                    double.start(1)
        assert [double.start(number).result() for number in range(3)] == [0, 2, 4]
