"""Identifiers that the library makes: workflow IDs, owner tokens, write IDs."""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
import uuid

_COUNTER_BITS = 74


class IdentifierSource:
    """Makes UUIDv7 texts (RFC 9562, section 5.7) that only ever grow within this object.

    Two calls in one millisecond differ by a random step in the 74 random bits, so that order within
    a millisecond is the order of the calls and index inserts stay local.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(secrets.randbits(128))
        self._milliseconds = 0
        self._counter = 0

    def begin_again(self) -> None:
        """In a forked child: a lock of its own, and numbers that the parent does not draw too."""
        self._lock = threading.Lock()
        self._random = random.Random(secrets.randbits(128))
        self._counter = 0
        self._milliseconds = 0

    def workflow_id(self) -> str:
        """A new UUIDv7 as text with hyphens, greater than every one made before by this object."""
        with self._lock:
            milliseconds = time.time_ns() // 1_000_000
            if milliseconds > self._milliseconds:
                self._milliseconds = milliseconds
                # The top bit starts at zero: room for 2**73 steps before the counter could overflow.
                self._counter = self._random.getrandbits(_COUNTER_BITS - 1)
            else:
                self._counter += 1 + self._random.getrandbits(32)
            milliseconds, counter = self._milliseconds, self._counter
        value = milliseconds << 80 | 0x7 << 76 | (counter >> 62) << 64 | 0b10 << 62 | counter & (1 << 62) - 1
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def token(self) -> str:
        """128 random bits as text that nobody else draws: an owner token, a generation."""
        # Not the system's source: the call gives up the interpreter lock, which with many threads takes long to get.
        return f"{self._random.getrandbits(128):032x}"

    def write_id(self) -> int:
        """63 random bits that name one write, so that repeating it can be told from another one."""
        return self._random.getrandbits(63)


def random_token() -> str:
    """128 unguessable bits as text: an owner token, a generation."""
    return secrets.token_hex(16)


def executor_id() -> str:
    """A name for one launch of one process: never reused, with the host's PID in it for people."""
    return f"{os.getpid()}-{uuid.uuid4().hex[:16]}"
