"""Processes that work off queues: ``python -m tests.acceptance.tasks URL OPTIONS``, until their input ends.

Each run says when it begins and ends (``began NUMBER KEY NANOSECONDS``), by a clock that all processes of a host share.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from sqlalchemy import Engine, make_url

from dbos_orm import DBOS, Config, RateLimit
from dbos_orm._workflows import Workflow
from tests.engines import engine_for

QUICK: dict[str, Any] = {"tick": 0.2, "lease": 4, "heartbeat": 1}


class Tasks:
    """An application whose tasks take some time, and workflows that start many and collect what they come to."""

    def __init__(self, bind: Engine, **settings: Any) -> None:
        self.dbos = DBOS(bind, name="tasks", config=Config(**QUICK | settings))
        self.dbos.queue("plain")
        self.dbos.queue("few", concurrency=5)
        self.dbos.queue("here", worker_concurrency=2)
        self.dbos.queue("slow", rate_limit=RateLimit(10, 0.8))
        self.dbos.queue("shared", concurrency=2, partitioned=True)
        self.dbos.queue("shares", rate_limit=RateLimit(3, 0.8), partitioned=True)
        self._lock = threading.Lock()
        self.double = self.dbos.step(self._double, name="double")
        self.work: Workflow[[int, str, float], int] = self.dbos.workflow(name="work", version="1")(self._work)
        self.many: Workflow[[int], list[int]] = self.dbos.workflow(name="many", version="1")(self._many)
        self.loop: Workflow[[int], list[int]] = self.dbos.workflow(name="loop", version="1")(self._loop)

    def _double(self, number: int, seconds: float) -> int:
        time.sleep(seconds)
        return 2 * number

    def _work(self, number: int, key: str, seconds: float) -> int:
        self._say("began", number, key)
        doubled = self.double(number, seconds)
        self._say("ended", number, key)
        return doubled

    def _many(self, count: int) -> list[int]:
        calls = [self.work.options(queue="plain").call(number, "", 0.0) for number in range(count)]
        return self.dbos.gather(*self.dbos.start_many(calls))

    def _loop(self, count: int) -> list[int]:
        handles = [self.work.options(queue="few").start(number, "", 0.0) for number in range(count)]
        return self.dbos.gather(*handles)

    def _say(self, what: str, number: int, key: str) -> None:
        with self._lock:
            sys.stdout.write(f"{what} {number} {key or '-'} {time.monotonic_ns()}\n")
            sys.stdout.flush()


def main(url: str, options: str) -> None:
    """Work until nobody is there to say more."""
    with Tasks(engine_for(make_url(url)), **json.loads(options)).dbos.launch():
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
