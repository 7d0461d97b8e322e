"""A process that does nothing but execute workflows, until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from dbos_orm._summary import LaunchSummary
from dbos_orm.app import DBOS
from dbos_orm.async_app import AsyncDBOS

__all__ = ["Worker"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LINGER_SECONDS: Final = 2.0
"""How long the interpreter may take to end behind the shutdown: threads of the user's may hold it up."""


class Worker:
    """Runs a launched application until SIGTERM or SIGINT, and ends it within ``grace`` seconds.

    The first signal stops it claiming at once; what runs may finish, and is handed over to other processes when the
    time is up. A second one ends the process on the spot, as a crash would: others continue its workflows.
    ``began`` and ``ending`` are told what is going on.
    """

    def __init__(
        self,
        queues: Sequence[str] | None,
        grace: float,
        *,
        began: Callable[[LaunchSummary], None],
        ending: Callable[[str, int], None],
    ) -> None:
        self._queues = queues
        self._grace = grace
        self._began = began
        self._ending = ending
        self._caught: signal.Signals | None = None
        # A handler may run between any two instructions of this thread, so that it must take no lock: it writes a byte.
        self._waker, self._awoken = socket.socketpair()

    def run(self, application: DBOS | AsyncDBOS) -> None:
        """Launch, wait for a signal, shut down; raises what the launch raises."""
        with self._handling_signals():
            if isinstance(application, AsyncDBOS):
                with asyncio.Runner() as runner:
                    runner.run(self._run_async(application))
                    _end_in_time()
            else:
                self._run_sync(application)
        _end_in_time()

    def _run_sync(self, application: DBOS) -> None:
        application.launch(queues=self._queues)
        try:
            self._began(application.summarize())
            self._awoken.recv(1)
            self._ending(self._name, application.running)
        finally:
            application.shutdown(self._grace)

    async def _run_async(self, application: AsyncDBOS) -> None:
        await application.launch(queues=self._queues)
        try:
            self._began(await asyncio.to_thread(application.summarize))
            self._awoken.setblocking(False)
            await asyncio.get_running_loop().sock_recv(self._awoken, 1)
            self._ending(self._name, application.running)
        finally:
            await application.shutdown(self._grace)

    @property
    def _name(self) -> str:
        return "a signal" if self._caught is None else self._caught.name

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._waker.close()
            self._awoken.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._caught is not None:
            os._exit(128 + number)
        self._caught = signal.Signals(number)
        self._waker.send(b"s")


def _end_in_time() -> None:
    """Have the process end soon with code 0, also if a thread of the user's keeps the interpreter from ending."""
    sys.stdout.flush()
    timer = threading.Timer(_LINGER_SECONDS, os._exit, [0])
    timer.daemon = True
    timer.start()
