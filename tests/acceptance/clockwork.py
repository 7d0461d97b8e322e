"""A process that runs schedules, and may be told to die in the middle of starting a run.

python -m tests.acceptance.clockwork URL EXPRESSION [before|after|committed]
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from dbos_orm import DBOS, Config
from dbos_orm._drivers.hints import Hints
from dbos_orm._services import scheduler


def application(url: str, expression: str) -> DBOS:
    """The application: one schedule, whose runs say that they ran."""
    dbos = DBOS(url, name="shop", config=Config(tick=0.2))

    @dbos.scheduled(expression, name="tick", catch_up="all")
    @dbos.workflow(name="note")
    def note(scheduled_at: datetime, actual_at: datetime) -> str:
        sys.stdout.write(f"ran {scheduled_at.isoformat()}\n")
        sys.stdout.flush()
        return scheduled_at.isoformat()

    return dbos


def die(*_: object, **__: object) -> None:
    """End as by the power cut."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str) -> None:
    """Have the process die around the write of a slot's run, within its transaction or just behind the commit."""
    insert: Callable[..., list[bool]] = vars(scheduler)["insert_runs"]

    def insert_and_die(*arguments: Any) -> list[bool]:
        if moment == "before":
            die()
        written = insert(*arguments)
        die()
        return written

    if moment == "committed":
        setattr(Hints, "announce", die)  # noqa: B010
    else:
        setattr(scheduler, "insert_runs", insert_and_die)  # noqa: B010


def main(arguments: Sequence[str]) -> None:
    """Run until somebody ends it."""
    url, expression, *moment = arguments
    if moment:
        die_at(moment[0])
    with application(url, expression):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
