"""Threads for contenders that have none of their own."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence


def share_out(workflows: int, runners: Sequence[Callable[[str], None]]) -> None:
    """Give each of that many new workflow IDs to the next runner that is free; each has a thread of its own.

    A single runner runs in the calling thread.
    """
    prefix = secrets.token_hex(8)
    numbers = iter(range(workflows))
    lock = threading.Lock()

    def run(runner: Callable[[str], None]) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            runner(f"{prefix}-{number}")

    threads = [threading.Thread(target=run, args=(runner,)) for runner in runners[1:]]
    for thread in threads:
        thread.start()
    run(runners[0])
    for thread in threads:
        thread.join()
