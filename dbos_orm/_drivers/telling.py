"""Tells other processes that workflows wait, in few statements, and never at the expense of who asks for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from dbos_orm._clock import steady_seconds
from dbos_orm._context import logger
from dbos_orm._drivers.gateway import Gateway
from dbos_orm._drivers.notices import Waiting, encode_notice
from dbos_orm._identifiers import random_token
from dbos_orm._store.notices import channel_of, notify

WINDOW_SECONDS: Final = 0.01
"""What is told within this time of the last notice goes into the next one."""
_LONGEST_WAIT_SECONDS: Final = 1.0


class Telling:
    """Sends notices: the first at once, and together what follows within the next 10 ms.

    They are sent behind the commit of what they are about, on the library's own pool: a NOTIFY holds a lock of the
    whole database until its transaction ends, so it is no part of anybody's work. An error is
    logged at DEBUG and forgotten, because everything is found without notices, too.

    With a service loop everything is sent there, and nobody waits. Without one the first is sent by the caller; the
    rest by the thread that calls ``flush`` after it was called by ``later``. What is only bound
    has no such thread, so ``later`` is None: callers share a statement with those who come while one is under way.
    """

    def __init__(self, gateway: Gateway, application: str, *, clock: Callable[[], float] = steady_seconds) -> None:
        self.sender = random_token()[:12]
        self.channel = channel_of(application, gateway.dialect)
        self.later: Callable[[], None] | None = None
        self._gateway = gateway
        self._clock = clock
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._due: dict[Waiting, float] = {}
        self._quiet_until = 0.0
        self._is_scheduled = False

    def tell(self, queue: str, name: str, *, after: float = 0.0) -> None:
        """Say that a workflow waits: now, or some seconds later where there is somebody to do that."""
        has_loop = self._gateway.has_service_loop
        later = self._begin_on_loop if has_loop else self.later
        if later is None:
            if not after:
                self._share((queue, name))
            return
        with self._lock:
            now = self._clock()
            is_now = not after and not has_loop and now >= self._quiet_until
            if is_now:
                self._quiet_until = now + WINDOW_SECONDS
                must_call = False
            else:
                due = now + after
                self._due[queue, name] = min(due, self._due.get((queue, name), due))
                must_call, self._is_scheduled = not self._is_scheduled, True
        if is_now:
            self._send([(queue, name)])
        elif must_call:
            later()

    def prove(self, proof: str) -> None:
        """Send a notice to oneself; unlike others it may fail."""
        self._notify(encode_notice(self.sender, proof=proof))

    def flush(self) -> float | None:
        """Send what is due, and give the seconds until it is to be called again; None if nothing is left."""
        with self._lock:
            now = self._clock()
            if now < self._quiet_until:
                return self._quiet_until - now
            batch = [pair for pair, due in self._due.items() if due <= now]
            for pair in batch:
                del self._due[pair]
            if not batch:
                self._is_scheduled = bool(self._due)
                return min(self._due.values()) - now if self._due else None
            self._quiet_until = now + WINDOW_SECONDS
        self._send(batch)
        return WINDOW_SECONDS

    def flush_all(self) -> None:
        """Send what is left, whenever it is due."""
        if batch := self._taken():
            self._send(batch)

    def _share(self, pair: Waiting) -> None:
        with self._lock:
            self._due[pair] = 0.0
        if not self._sending.acquire(timeout=_LONGEST_WAIT_SECONDS):
            return
        try:
            # Unless whoever was sending took it along.
            if pair in self._due and (batch := self._taken()):
                self._send(batch)
        finally:
            self._sending.release()

    def _taken(self) -> list[Waiting]:
        with self._lock:
            batch, self._due, self._is_scheduled = list(self._due), {}, False
        return batch

    def _begin_on_loop(self) -> None:
        try:
            self._gateway.start(self._flush_on_loop)
        except RuntimeError as error:
            logger.debug("others are not told that workflows wait, the service loop has ended: %s", error)

    def _flush_on_loop(self) -> None:
        while (pause := self.flush()) is not None:
            self._gateway.pause(pause)

    def _send(self, batch: list[Waiting]) -> None:
        try:
            self._notify(encode_notice(self.sender, waiting=batch))
        except Exception as error:
            logger.debug("others were not told that workflows wait, they find them by themselves: %s", error)

    def _notify(self, text: str) -> None:
        dialect = self._gateway.dialect
        self._gateway.read_once(partial(notify, dialect=dialect, channel=self.channel, text=text))
