"""Worker threads: a bound on what is busy, no bound on what waits, and no deadlock between the two."""

from __future__ import annotations

import threading

import pytest

from dbos_orm._drivers.worker_threads import WorkerThreads
from tests.processes import PATIENCE, eventually


def test_no_more_jobs_than_the_limit_run_at_once() -> None:
    threads = WorkerThreads(2, "test")
    may_go_on, started = threading.Event(), list[int]()

    def job(number: int) -> None:
        started.append(number)
        assert may_go_on.wait(PATIENCE)

    for number in range(5):
        threads.submit(lambda number=number: job(number))  # type: ignore[misc]
    eventually(lambda: len(started) == 2)
    assert threads.free == 0
    may_go_on.set()
    eventually(lambda: threads.free == 2)
    assert sorted(started) == [0, 1, 2, 3, 4]
    threads.close()


def test_a_job_that_waits_lends_its_slot() -> None:
    threads = WorkerThreads(1, "test")
    is_done, outer_done = threading.Event(), threading.Event()

    def outer() -> None:
        threads.submit(is_done.set)
        with threads.lent():
            assert is_done.wait(PATIENCE)
        outer_done.set()

    threads.submit(outer)
    assert outer_done.wait(PATIENCE)
    eventually(lambda: threads.free == 1)
    threads.close()


def test_lending_means_nothing_on_a_thread_of_somebody_else() -> None:
    threads = WorkerThreads(1, "test")
    with threads.lent():
        assert threads.free == 1


def test_a_job_that_fails_gives_its_slot_back(caplog: pytest.LogCaptureFixture) -> None:
    threads = WorkerThreads(1, "test")
    is_done = threading.Event()

    def fail() -> None:
        raise KeyboardInterrupt

    threads.submit(fail)
    threads.submit(is_done.set)
    assert is_done.wait(PATIENCE)
    assert "ended with an unexpected error" in caplog.text
    threads.close()


def test_an_idle_thread_is_used_again() -> None:
    threads = WorkerThreads(8, "test")
    seen: set[int] = set()
    for _ in range(5):
        is_done = threading.Event()

        def job(is_done: threading.Event = is_done) -> None:
            seen.add(threading.get_ident())
            is_done.set()

        threads.submit(job)
        assert is_done.wait(PATIENCE)
        eventually(lambda: threads.free == 8)
        eventually(lambda: len(threads._sleeping) == 1)
    assert len(seen) == 1
    threads.close()


def test_closing_ends_the_threads_and_drops_what_waits() -> None:
    threads = WorkerThreads(1, "closed")
    may_go_on, is_running, ran = threading.Event(), threading.Event(), list[int]()

    def job() -> None:
        is_running.set()
        assert may_go_on.wait(PATIENCE)

    threads.submit(job)
    threads.submit(lambda: ran.append(1))
    assert is_running.wait(PATIENCE)
    threads.close()
    may_go_on.set()
    eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("closed")])
    assert ran == []


def test_parts_of_jobs_that_have_begun_come_first() -> None:
    threads = WorkerThreads(1, "test")
    may_go_on, is_running, ran = threading.Event(), threading.Event(), list[str]()

    def job() -> None:
        is_running.set()
        assert may_go_on.wait(PATIENCE)

    def forgotten() -> None:
        ran.append("forgotten")

    threads.submit(job)
    assert is_running.wait(PATIENCE)
    threads.submit(lambda: ran.append("job"))
    for part in (lambda: ran.append("first part"), forgotten, lambda: ran.append("second part")):
        threads.submit(part, is_part=True)
    threads.withdraw_part(forgotten)
    threads.withdraw_part(forgotten)
    may_go_on.set()
    eventually(lambda: len(ran) == 3)
    assert ran == ["first part", "second part", "job"]
    threads.close()
