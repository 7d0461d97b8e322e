"""Every setting of an application, validated once, where it is made."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Final

from dbos_orm.errors import ConfigurationError
from dbos_orm.serialization import Serializer

__all__ = ["Config", "Duration", "require_count", "require_text", "seconds"]

Duration = timedelta | float
"""A length of time as the API takes it: a ``timedelta``, or seconds as a number."""

_POSITIVE_DURATIONS: Final = (
    "lease", "heartbeat", "tick", "suspend_threshold", "lock_timeout", "launch_timeout", "sqlite_busy_timeout",
    "retry_unreadable",
)  # fmt: skip
_POSITIVE_COUNTS: Final = ("pool_size", "worker_threads", "async_workflows", "transaction_attempts", "batch_size")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_LONGEST_SECONDS: Final = 100 * 366 * 86_400
"""What is longer was not meant, and beyond some point neither dates nor databases can add it."""


def seconds(duration: object, *, field: str = "duration") -> float:
    """Give a duration in seconds.

    Raises:
        ConfigurationError: it is no ``timedelta`` and no finite number, or longer than 100 years.
    """
    if isinstance(duration, timedelta):
        duration = duration.total_seconds()
    if not isinstance(duration, (int, float)) or isinstance(duration, bool) or not math.isfinite(duration):
        raise ConfigurationError(
            field,
            duration,
            "a timedelta, or a finite number of seconds",
            f"pass for example {field}=timedelta(seconds=30)",
        )
    if abs(duration) > _LONGEST_SECONDS:
        raise ConfigurationError(field, duration, "at most 100 years", "leave it out if there is no limit")
    return float(duration)


def require_count(field: str, value: object) -> None:
    """Raise ``ConfigurationError`` unless the value is a whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(field, value, "a whole number from 1", f"leave {field} out for the default")


def require_text(field: str, value: object) -> None:
    """Raise ``ConfigurationError`` unless the value is a text that a database can hold, and not an empty one."""
    if not isinstance(value, str) or not value.strip() or not is_storable(value):
        raise ConfigurationError(field, value, "a text", f"leave {field} out for the default")


def is_storable(text: str) -> bool:
    """Whether every database can hold a text: none holds NUL, or half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one application; a wrong one raises ``ConfigurationError`` that names the field.

    Durations are ``timedelta`` or seconds. A setting is read when the application is launched.
    """

    lease: Duration = 30
    """How long a process may stay silent before others continue its workflows."""
    heartbeat: Duration = 10
    """How often a process renews its lease; at most half the lease."""
    tick: Duration = 1
    """How often a process asks the database what it missed: cancels, dead processes, waiting workflows."""
    suspend_threshold: Duration = 30
    """Waits longer than this may give up their thread."""
    lock_timeout: Duration = 0.1
    """How long a checkpoint waits for somebody else's row lock before it is retried alone."""
    launch_timeout: Duration = 30
    """How long ``launch()`` keeps trying to reach the database."""
    sqlite_busy_timeout: Duration = 30
    """How long SQLite waits for another process that is writing."""
    pool_size: int = 4
    """Connections of the library's own pool, beside one for heartbeats."""
    worker_threads: int = 64
    """Workflows started in the background that run at the same time; a direct call never waits for a slot."""
    async_workflows: int = 1000
    """Asynchronous workflows that one process takes from the database to run them at the same time."""
    retry_unreadable: Duration = 60
    """How long a workflow whose row this process cannot read is put aside before somebody tries it again."""
    transaction_attempts: int = 10
    """How often a transactional step is tried when the database reports a conflict."""
    batch_size: int = 500
    """Checkpoints that share one commit at most."""
    max_recovery_attempts: int | None = 100
    """Take-overs without a new recorded step after which a workflow is given up; ``None``: never."""
    executor_id: str | None = None
    """Stands in front of the name that each launch gets in the database; for people."""
    application_version: str | None = None
    """Replaces the version that is computed from each workflow's source."""
    serializer: str = "json"
    """The name of the serializer for new values: ``json``, ``pickle``, or one of ``serializers``."""
    serializers: Sequence[Serializer] = ()
    """Further serializers; values are read with the one that their row names."""
    may_block_loop: bool = False
    """Let blocking operations of ``DBOS`` stop an event loop that runs on their thread, as that of a notebook."""
    verify_values: bool = False
    """Decode every recorded value at once and hand that to the workflow; for tests."""

    def __post_init__(self) -> None:
        for name in _POSITIVE_DURATIONS:
            value = getattr(self, name)
            if seconds(value, field=name) <= 0:
                raise ConfigurationError(name, value, "more than zero", f"leave {name} out for the default")
        for name in _POSITIVE_COUNTS:
            require_count(name, getattr(self, name))
        if self.max_recovery_attempts is not None:
            require_count("max_recovery_attempts", self.max_recovery_attempts)
        for name in ("executor_id", "application_version"):
            if getattr(self, name) is not None:
                require_text(name, getattr(self, name))
        if seconds(self.heartbeat) * 2 > seconds(self.lease):
            raise ConfigurationError(
                "heartbeat",
                self.heartbeat,
                f"at most half the lease of {seconds(self.lease):g} s",
                "lower heartbeat or raise lease, so that one lost heartbeat does not cost the lease",
            )
        names = {"json", "pickle", *(serializer.name for serializer in self.serializers)}
        if self.serializer not in names:
            raise ConfigurationError(
                "serializer",
                self.serializer,
                f"one of {sorted(names)}",
                "add your serializer to serializers=",
            )

    def __repr__(self) -> str:
        changed = [f for f in fields(self) if getattr(self, f.name) != f.default]
        return f"Config({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"
