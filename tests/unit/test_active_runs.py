"""The runs of a process, and who is woken by their end."""

from __future__ import annotations

import threading

from dbos_orm._context import Launch, Run
from dbos_orm._drivers.active_runs import ActiveRuns
from dbos_orm.errors import OwnershipLost, SerializationError, WorkflowCancelled
from tests.processes import PATIENCE

LAUNCH = Launch("test", lease_ends=float("inf"))


def run(workflow_id: str) -> Run:
    return Run(workflow_id, "work", "token", LAUNCH, is_async=False, generation="g")


def test_runs_are_known_while_they_run() -> None:
    runs, one = ActiveRuns(), run("w")
    runs.begin(one)
    assert (runs.get("w"), runs.all(), len(runs)) == (one, [one], 1)
    runs.end(one)
    assert (runs.get("w"), runs.all(), len(runs)) == (None, [], 0)


def test_the_end_wakes_who_watches_once() -> None:
    runs, one, woken = ActiveRuns(), run("w"), list[int]()
    runs.begin(one)

    def wake(ended: Run) -> None:
        assert ended is one
        woken.append(1)

    assert runs.watch("w", wake)
    runs.end(one)
    runs.end(one)
    assert woken == [1]
    assert not runs.watch("w", wake)


def test_who_no_longer_watches_is_not_woken() -> None:
    runs, one, woken = ActiveRuns(), run("w"), list[int]()
    runs.begin(one)

    def wake(ended: Run) -> None:
        assert ended is one
        woken.append(1)

    runs.watch("w", wake)
    runs.unwatch("w", wake)
    runs.unwatch("w", wake)
    runs.end(one)
    assert woken == []


def test_the_end_of_an_earlier_run_does_not_end_the_present_one() -> None:
    runs, earlier, present = ActiveRuns(), run("w"), run("w")
    runs.begin(earlier)
    runs.begin(present)
    runs.end(earlier)
    assert runs.get("w") is present


def test_a_run_dropped_in_doubt_is_kept_for_a_hand_over() -> None:
    runs = ActiveRuns()
    doubtful, unreadable, cancelled = run("a"), run("b"), run("c")
    doubtful.end_with(OwnershipLost("a"))
    unreadable.end_with(OwnershipLost("b"))
    unreadable.failure = SerializationError("payload", "Money", "register it")
    cancelled.end_with(WorkflowCancelled("c"))
    for one in (doubtful, unreadable, cancelled):
        runs.begin(one)
        runs.end(one)
    assert list(runs.dropped) == [doubtful]


def test_waiting_for_the_last_run() -> None:
    runs, one = ActiveRuns(), run("w")
    assert runs.wait_until_none(0)
    runs.begin(one)
    assert not runs.wait_until_none(0)
    waiter = threading.Thread(target=runs.wait_until_none, args=(PATIENCE,))
    waiter.start()
    runs.end(one)
    waiter.join(PATIENCE)
    assert not waiter.is_alive()
