"""The service loop: what was submitted is answered before the loop ends."""

from __future__ import annotations

import asyncio
import threading

from sqlalchemy.util import await_only

from dbos_orm._drivers.service_loop import ServiceLoop
from tests.processes import PATIENCE


def test_what_was_submitted_is_answered_before_the_loop_ends() -> None:
    loop, is_running = ServiceLoop("test"), threading.Event()
    may_go_on = loop.submit(asyncio.Event).result(PATIENCE)

    def wait() -> str:
        is_running.set()
        await_only(may_go_on.wait())
        return "done"

    answer = loop.submit(wait)
    assert is_running.wait(PATIENCE)
    loop.start(may_go_on.set)
    loop.stop()
    assert answer.done()
    assert answer.result() == "done"


def test_stopping_what_never_ran_is_harmless() -> None:
    loop = ServiceLoop("test")
    loop.drain()
    loop.stop()


def test_the_loop_has_a_thread_of_its_own() -> None:
    loop = ServiceLoop("test")
    try:
        assert loop.submit(loop.is_here).result(PATIENCE)
        assert not loop.is_here()
    finally:
        loop.stop()
