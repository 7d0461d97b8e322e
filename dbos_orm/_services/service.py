"""The shape of every background part: start, stop, run once."""

from __future__ import annotations

import abc
import threading

from dbos_orm._context import logger


class Service(abc.ABC):
    """Something that is done again and again in a thread of its own.

    ``run_once`` does it once and says after how many seconds it is to be done again; a test may call it
    without starting anything. An error is logged, and it is tried again after ``retry_seconds``.
    """

    retry_seconds = 1.0

    def __init__(self, name: str) -> None:
        self._name = name
        self._wake = threading.Event()
        self._is_stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @abc.abstractmethod
    def run_once(self) -> float:
        """Do it, and give the seconds until the next time."""

    def start(self) -> None:
        """Begin doing it, at once."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Do it now instead of later."""
        self._wake.set()

    def stop(self) -> None:
        """Stop doing it, and wait for what is under way."""
        self._is_stopped.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def is_stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._is_stopped.is_set()

    def _run(self) -> None:
        while not self.is_stopped():
            try:
                seconds = self.run_once()
            except Exception as error:
                if self.is_stopped():
                    return
                logger.warning("%s failed and is tried again: %s", self._name, error)
                seconds = self.retry_seconds
            self._wake.wait(seconds)
            self._wake.clear()
