"""Hears what other processes tell: LISTEN, where the database and what stands before it deliver."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial
from typing import Final

from dbos_orm._clock import steady_seconds
from dbos_orm._context import logger
from dbos_orm._dialects import Listener, open_listener
from dbos_orm._drivers.binding import Binding
from dbos_orm._drivers.notices import decode_notice
from dbos_orm._drivers.telling import Telling
from dbos_orm._identifiers import random_token
from dbos_orm._services.service import Service

_PROOF_SECONDS: Final = 2.0
"""How long a notice to oneself may take before it counts as lost."""
_PROVEN_SECONDS: Final = 60.0
"""How often a silent connection is tried: one that a firewall forgot says nothing of it."""
_REFUSED_SECONDS: Final = 300.0
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 3_600.0


class ListenerService(Service):
    """Passes on the notices of other processes, on a connection and a thread of its own.

    It believes only what it has seen: a notice to itself must arrive. Behind a pooler none does; then it says so once,
    and tries again minutes later. After a lost connection everything is looked at once, because
    what was told meanwhile went unheard. While all is quiet it sends one statement a minute.
    """

    def __init__(self, binding: Binding, telling: Telling) -> None:
        super().__init__(f"dbos-{binding.environment.application}-listener")
        self._binding = binding
        self._telling = telling
        self._listener: Listener | None = None
        self._proof = ""
        self._pause = _FIRST_PAUSE_SECONDS
        self._is_refusal_told = False
        self._may_have_missed = False

    def run_once(self) -> float:
        """Listen until the connection is lost or this is stopped."""
        try:
            self._open()
            if not self._is_proven():
                return self._refused()
            self._pause = _FIRST_PAUSE_SECONDS
            self._serve()
            return 0.0
        except Exception as error:
            logger.debug("listening for notices ended and begins again: %s", error)
            pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            return pause * (0.5 + random.random() / 2)
        finally:
            self._binding.hints.is_listening = False
            self._close()

    def wake(self) -> None:
        super().wake()
        if self._listener is not None:
            self._listener.wake()

    def stop(self) -> None:
        self._is_stopped.set()
        self.wake()
        super().stop()

    def _open(self) -> None:
        # Of the user's engine, not of a pool of ours: it is in use for as long as it lives.
        call = partial(open_listener, self._binding.engine, self._telling.channel, self._hear)
        self._listener = self._binding.gateway.blocking(call)

    def _close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(Exception):
                self._binding.gateway.blocking(listener.close)

    def _serve(self) -> None:
        hints = self._binding.hints
        hints.is_listening = True
        # At first the launch has just looked, and the tick finds what was told between that and now.
        if self._may_have_missed and hints.look_everywhere is not None:
            hints.look_everywhere()
        self._may_have_missed = True
        proven = steady_seconds()
        while not self.is_stopped():
            assert self._listener is not None
            self._listener.wait(max(0.0, proven + _PROVEN_SECONDS - steady_seconds()))
            if steady_seconds() - proven >= _PROVEN_SECONDS and not self.is_stopped():
                if not self._is_proven():
                    raise ConnectionError("a notice to oneself did not arrive")
                proven = steady_seconds()

    def _is_proven(self) -> bool:
        """Whether a notice arrives that is sent over another connection."""
        assert self._listener is not None
        self._proof = proof = random_token()
        self._telling.prove(proof)
        ends = steady_seconds() + _PROOF_SECONDS
        while self._proof and not self.is_stopped():
            if (left := ends - steady_seconds()) <= 0:
                return False
            self._listener.wait(left)
        return True

    def _refused(self) -> float:
        if not self._is_refusal_told:
            self._is_refusal_told = True
            logger.warning(
                "LISTEN does not deliver on %s (a pooler in transaction mode?): polling instead, "
                "so work of other processes is found within a tick and not at once",
                self._binding.engine.url.render_as_string(),
            )
        return _REFUSED_SECONDS

    def _hear(self, text: str) -> None:
        notice = decode_notice(text)
        if notice is None:
            return
        if notice.sender != self._telling.sender:
            self._binding.hints.heard(notice)
        elif notice.proof is not None and notice.proof == self._proof:
            self._proof = ""


class TellingService(Service):
    """Sends the notices that were put off, for an application without an event loop of its own."""

    def __init__(self, binding: Binding, telling: Telling) -> None:
        super().__init__(f"dbos-{binding.environment.application}-telling")
        self._telling = telling

    def start(self) -> None:
        self._telling.later = self.wake
        super().start()

    def run_once(self) -> float:
        """Send what is due."""
        pause = self._telling.flush()
        return _IDLE_SECONDS if pause is None else pause

    def stop(self) -> None:
        self._telling.later = None
        super().stop()
        self._telling.flush_all()
