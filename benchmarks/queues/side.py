"""A contender's side of a process. Standard library only: it is run in environments of others too.

The process prepares and says ``ready``; at a line it begins. At the end of its input it answers with what it knows,
and ends, whatever still runs in it: what was acknowledged is in the database.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.queues.task import QueueTask

# Seconds between two starts on an idle queue, and for how long they go on.
GAPS = (0.04, 0.08)
PATIENCE = 20.0


class Talk:
    """The conversation with ``benchmarks.queues.program``.

    Instants are those of ``time.perf_counter``, which all processes of a Linux machine share. ``begun`` has when
    the function of each number was entered, ``started`` and ``ended`` when its start was called and its result was
    there.
    """

    def __init__(self) -> None:
        # What the contender prints is not an answer.
        self._answers, sys.stdout = sys.stdout, sys.stderr
        self._cpu = 0.0
        self._seconds = 0.0
        self.begun: dict[int, float] = {}
        self.started: dict[int, float] = {}
        self.ended: dict[int, float] = {}

    def wait_for_go(self) -> None:
        """Say that all is prepared, and wait until the clock runs."""
        self._say("ready")
        sys.stdin.readline()
        self._cpu = time.process_time()
        # Whatever the contender's threads and loops do: the end of the input is the end.
        threading.Thread(target=self._end, daemon=True).start()

    def tell_done(self, seconds: float = 0.0) -> None:
        """Say that the work is done, which took that long."""
        self._seconds = seconds
        self._say("done")

    def stay(self) -> None:
        """Block the calling thread until the process ends."""
        threading.Event().wait()

    def entered(self, number: int) -> int:
        """Note that the function of ``number`` has begun; what it returns."""
        self.begun[number] = time.perf_counter()
        return number

    def _end(self) -> None:
        sys.stdin.read()
        facts = {"cpu": time.process_time() - self._cpu, "seconds": self._seconds}
        instants = {"begun": self.begun, "started": self.started, "ended": self.ended}
        try:
            self._say(json.dumps({**facts, **{name: list(known.items()) for name, known in instants.items()}}))
        finally:
            # Nobody may have wanted the answer, and the main thread stays for ever.
            os._exit(0)

    def _say(self, line: str) -> None:
        print(line, file=self._answers, flush=True)


def start_apart(talk: Talk, count: int, run: Callable[[int], bool]) -> None:
    """Start ``count`` on an idle queue with pauses in between; ``run`` tells whether it has seen a result."""
    talk.wait_for_go()
    until = time.monotonic() + PATIENCE
    for number in range(count):
        time.sleep(random.uniform(*GAPS))
        if time.monotonic() > until:
            break
        talk.started[number] = time.perf_counter()
        if run(number):
            talk.ended[number] = time.perf_counter()
    talk.tell_done()
    talk.stay()


async def start_apart_async(talk: Talk, count: int, run: Callable[[int], Awaitable[bool]]) -> None:
    """``start_apart`` on a loop, where the contender's consumer may run too; it returns when all were started."""
    talk.wait_for_go()
    until = time.monotonic() + PATIENCE
    for number in range(count):
        await asyncio.sleep(random.uniform(*GAPS))
        if time.monotonic() > until:
            break
        talk.started[number] = time.perf_counter()
        if await run(number):
            talk.ended[number] = time.perf_counter()
    talk.tell_done()


def timed(talk: Talk, work: Callable[[], Any]) -> None:
    """Say ready, do the work, and tell how long it took."""
    talk.wait_for_go()
    began = time.perf_counter()
    work()
    talk.tell_done(time.perf_counter() - began)
    talk.stay()


async def timed_async(talk: Talk, work: Callable[[], Awaitable[Any]]) -> None:
    """``timed`` on a loop; it returns when the work is done."""
    talk.wait_for_go()
    began = time.perf_counter()
    await work()
    talk.tell_done(time.perf_counter() - began)


def main(play: Callable[[QueueTask, Talk], None]) -> None:
    """Play the part on the command line."""
    play(QueueTask.from_json(sys.argv[1]), Talk())
