"""Group commit with a database that is not there: who shares a batch, who leads, and what each of them is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from dbos_orm._context import Launch, Run
from dbos_orm._dialects import Fault
from dbos_orm._drivers import committer as commits
from dbos_orm._drivers.committer import Committer
from dbos_orm._drivers.gateway import Gateway
from dbos_orm._drivers.tickets import Lane, Ticket
from dbos_orm._flows.effects import WriteResult
from dbos_orm._store.entries import Entry, RunFinish
from dbos_orm.config import Config
from dbos_orm.errors import OwnershipLost
from tests.processes import PATIENCE, eventually


class AwayError(Exception):
    """The connection is gone."""


class RefusedError(Exception):
    """The database refuses a value."""


class FakeDialect:
    single_writer = True  # one lane: what is pending is one batch

    def fault(self, error: BaseException) -> Fault:
        return Fault.DISCONNECTED if isinstance(error, AwayError) else Fault.REJECTED


class FakePatience:
    def require(self, error: Exception, run: Run | None) -> None:
        if run is not None and not run.launch.is_valid:
            raise OwnershipLost(run.workflow_id)

    def next_pause(self) -> float:
        return 0.0


class FakeGateway:
    has_service_loop = False
    dialect = FakeDialect()

    def new_patience(self) -> FakePatience:
        return FakePatience()

    def pause(self, duration: float) -> None: ...


class ScriptedCommitter(Committer):
    """Writes nothing; ``script`` answers for the database."""

    def __init__(self, script: Callable[[list[str]], None] = lambda batch: None, **settings: Any) -> None:
        super().__init__(cast("Gateway", FakeGateway()), Config(**settings), lambda run: None)
        self.batches: list[list[str]] = []
        self.threads: list[int] = []
        self._script = script

    def _write(self, lane: Lane, entries: Sequence[Entry]) -> set[int]:
        batch = [entry.workflow_id for entry in entries]
        self.batches.append(batch)
        self.threads.append(threading.get_ident())
        self._script(batch)
        return {number for number, name in enumerate(batch) if not name.startswith("refused")}

    @property
    def waiting(self) -> int:
        return len(self._pending)


def finish(workflow_id: str) -> RunFinish:
    return RunFinish(workflow_id, "token", "SUCCESS", None, None, "json")


class Callers:
    """Threads that write one entry each, and what became of it."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._threads: list[threading.Thread] = []
        self.results: dict[str, WriteResult | BaseException] = {}

    def add(self, workflow_id: str, run: Run | None = None) -> None:
        thread = threading.Thread(target=self._write, args=(workflow_id, run), name=workflow_id)
        self._threads.append(thread)
        thread.start()

    def join(self) -> dict[str, WriteResult | BaseException]:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} waits for ever"
        return self.results

    def _write(self, workflow_id: str, run: Run | None) -> None:
        try:
            self.results[workflow_id] = self._committer.write(finish(workflow_id), run)
        except BaseException as error:
            self.results[workflow_id] = error


class Gate:
    """Holds the first batch until it is opened, so that others come meanwhile."""

    def __init__(self, then: Callable[[list[str]], None] = lambda batch: None) -> None:
        self.is_held, self._is_open = threading.Event(), threading.Event()
        self._then = then

    def __call__(self, batch: list[str]) -> None:
        if not self.is_held.is_set():
            self.is_held.set()
            assert self._is_open.wait(PATIENCE)
        self._then(batch)

    def open(self) -> None:
        self._is_open.set()


def wait_for_line(committer: ScriptedCommitter, length: int) -> None:
    eventually(lambda: committer.waiting == length)


def queued_behind(gate: Gate, committer: ScriptedCommitter, names: Sequence[str]) -> Callers:
    """``first`` is being written; the others stand in line, in this order."""
    callers = Callers(committer)
    callers.add("first")
    assert gate.is_held.wait(PATIENCE)
    for number, name in enumerate(names, start=1):
        callers.add(name)
        wait_for_line(committer, number)
    return callers


def test_one_caller_alone_writes_in_its_own_thread() -> None:
    committer = ScriptedCommitter()
    assert committer.write(finish("a"), None) is WriteResult.WRITTEN
    assert committer.write(finish("refused"), None) is WriteResult.REFUSED
    assert committer.batches == [["a"], ["refused"]]
    assert set(committer.threads) == {threading.get_ident()}


def test_those_who_come_during_a_flush_share_the_next() -> None:
    committer = ScriptedCommitter(gate := Gate())
    names = [f"{number}" for number in range(20)]
    callers = queued_behind(gate, committer, names)
    gate.open()
    assert set(callers.join().values()) == {WriteResult.WRITTEN}
    assert committer.batches == [["first"], names]


def test_a_batch_has_a_limit() -> None:
    committer = ScriptedCommitter(gate := Gate(), batch_size=8)
    names = [f"{number}" for number in range(20)]
    callers = queued_behind(gate, committer, names)
    gate.open()
    assert set(callers.join().values()) == {WriteResult.WRITTEN}
    assert committer.batches == [["first"], names[:8], names[8:16], names[16:]]


def test_each_is_told_what_became_of_its_own_entry() -> None:
    committer = ScriptedCommitter(gate := Gate())
    callers = queued_behind(gate, committer, ["a", "refused b", "c"])
    gate.open()
    assert callers.join() == {
        "first": WriteResult.WRITTEN,
        "a": WriteResult.WRITTEN,
        "refused b": WriteResult.REFUSED,
        "c": WriteResult.WRITTEN,
    }


def test_one_bad_value_stalls_its_batch_and_raises_for_nobody() -> None:
    def refuse(batch: list[str]) -> None:
        if "bad" in batch:
            raise RefusedError

    committer = ScriptedCommitter(gate := Gate(refuse))
    callers = queued_behind(gate, committer, ["a", "bad"])
    gate.open()
    assert callers.join() == {"first": WriteResult.WRITTEN, "a": WriteResult.STALLED, "bad": WriteResult.STALLED}
    assert committer.write(finish("b"), None) is WriteResult.WRITTEN


def test_a_database_that_is_away_is_tried_again() -> None:
    def away(batch: list[str]) -> None:
        if len(committer.batches) < 4:
            raise AwayError

    committer = ScriptedCommitter(away)
    assert committer.write(finish("a"), None) is WriteResult.WRITTEN
    assert committer.batches == [["a"]] * 4


def test_who_may_wait_no_longer_leaves_the_batch_to_the_others() -> None:
    launch = Launch("test", lease_ends=float("inf"))
    ended = Launch("ended", lease_ends=0.0)

    def away(batch: list[str]) -> None:
        if "mine" in batch and "lost" in batch:
            raise AwayError

    committer = ScriptedCommitter(gate := Gate(away))
    callers = queued_behind(gate, committer, [])
    for number, (name, owner) in enumerate({"lost": ended, "mine": launch}.items(), start=1):
        callers.add(name, Run(name, "work", "token", owner, is_async=False, generation="g"))
        wait_for_line(committer, number)
    gate.open()
    results = callers.join()
    assert isinstance(results["lost"], OwnershipLost)
    assert results["mine"] is WriteResult.WRITTEN
    assert committer.batches == [["first"], ["lost", "mine"], ["mine"]]


def test_an_interrupted_leader_leaves_nobody_waiting() -> None:
    def interrupt(batch: list[str]) -> None:
        if batch == ["a", "b", "c"]:
            raise KeyboardInterrupt

    committer = ScriptedCommitter(gate := Gate(interrupt))
    callers = queued_behind(gate, committer, ["a", "b", "c"])
    gate.open()
    results = callers.join()
    assert isinstance(results["a"], KeyboardInterrupt)
    assert (results["b"], results["c"]) == (WriteResult.STALLED, WriteResult.STALLED)
    assert committer.write(finish("d"), None) is WriteResult.WRITTEN


@pytest.fixture
def interruptions(monkeypatch: pytest.MonkeyPatch) -> dict[str, threading.Event]:
    """Threads of these names are interrupted while they wait, when their event is set."""
    made = commits._taken_lock
    events: dict[str, threading.Event] = {}

    class Interrupted:
        def __init__(self, event: threading.Event) -> None:
            self._event = event

        def acquire(self) -> None:
            assert self._event.wait(PATIENCE)
            raise KeyboardInterrupt

        def release(self) -> None: ...

    def lock() -> Any:
        event = events.get(threading.current_thread().name)
        return made() if event is None else Interrupted(event)

    monkeypatch.setattr(commits, "_taken_lock", lock)
    return events


def test_an_interrupted_waiter_leads_nobody(interruptions: dict[str, threading.Event]) -> None:
    interruptions["a"] = threading.Event()
    committer = ScriptedCommitter(gate := Gate())
    callers = queued_behind(gate, committer, ["a", "b", "c"])
    interruptions["a"].set()
    eventually(lambda: "a" in callers.results)
    gate.open()
    results = callers.join()
    assert isinstance(results["a"], KeyboardInterrupt)
    assert (results["b"], results["c"]) == (WriteResult.WRITTEN, WriteResult.WRITTEN)


def test_who_is_interrupted_when_it_was_to_wake_the_next_does_so(interruptions: dict[str, threading.Event]) -> None:
    interruptions["b"] = threading.Event()
    committer = ScriptedCommitter(gate := Gate())
    callers = queued_behind(gate, committer, ["a", "b", "c", "d"])
    gate.open()
    eventually(lambda: set(callers.results) == {"first", "a"})
    interruptions["b"].set()
    results = callers.join()
    assert isinstance(results["b"], KeyboardInterrupt)
    assert (results["c"], results["d"]) == (WriteResult.WRITTEN, WriteResult.WRITTEN)


# -- entries that nobody waits for ---------------------------------------------------------------


def test_an_entry_that_nobody_waits_for_is_written_at_once_if_nobody_else_writes() -> None:
    committer, told = ScriptedCommitter(), list[Ticket]()
    committer.write_later(finish("a"), None, told.append)
    assert [ticket.outcome() for ticket in told] == [WriteResult.WRITTEN]


def test_entries_that_nobody_waits_for_are_written_by_whoever_was_writing() -> None:
    committer, told = ScriptedCommitter(gate := Gate()), list[Ticket]()
    callers = queued_behind(gate, committer, [])
    for name in ("a", "refused b"):
        committer.write_later(finish(name), None, told.append)
    assert told == []
    gate.open()
    assert callers.join() == {"first": WriteResult.WRITTEN}
    assert [ticket.outcome() for ticket in told] == [WriteResult.WRITTEN, WriteResult.REFUSED]
    assert committer.batches == [["first"], ["a", "refused b"]]
    assert committer.write(finish("c"), None) is WriteResult.WRITTEN


def test_a_thread_that_waits_leads_those_that_nobody_waits_for() -> None:
    committer, told = ScriptedCommitter(gate := Gate()), list[Ticket]()
    callers = queued_behind(gate, committer, [])
    committer.write_later(finish("a"), None, told.append)
    callers.add("b")
    wait_for_line(committer, 2)
    gate.open()
    assert callers.join() == {"first": WriteResult.WRITTEN, "b": WriteResult.WRITTEN}
    assert [ticket.outcome() for ticket in told] == [WriteResult.WRITTEN]
    assert committer.batches == [["first"], ["a", "b"]]
    assert len(set(committer.threads)) == 2


def test_what_is_written_later_hears_of_a_batch_that_stalled() -> None:
    def refuse(batch: list[str]) -> None:
        if "bad" in batch:
            raise RefusedError

    committer, told = ScriptedCommitter(gate := Gate(refuse)), list[Ticket]()
    callers = queued_behind(gate, committer, [])
    for name in ("a", "bad"):
        committer.write_later(finish(name), None, told.append)
    gate.open()
    callers.join()
    assert [ticket.outcome() for ticket in told] == [WriteResult.STALLED, WriteResult.STALLED]
