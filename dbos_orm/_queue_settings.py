"""What code says of a queue, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from dbos_orm.config import Duration, is_storable, require_count, seconds
from dbos_orm.errors import ConfigurationError

OnConflict: TypeAlias = Literal["keep", "update"]

_LONGEST_NAME: Final = 200
_RESERVED: Final = "_dbos"


class RateLimit(NamedTuple):
    """At most ``limit`` starts within any ``period``, which slides."""

    limit: int
    period: Duration


class Debounce(NamedTuple):
    """Starts with one ``key`` become one run, with the newest arguments, ``period`` after the last of them.

    It is no later than ``max_wait`` after the first.
    """

    key: str
    period: Duration
    max_wait: Duration | None = None


class NamedQueue(Protocol):
    """Anything that stands for a queue, as what ``dbos.queue`` gives does."""

    @property
    def name(self) -> str:
        """The name of the queue."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The limits that code declares for a queue; ``rate_period`` in seconds. None is no limit.

    In a partitioned queue each limit is meant for each partition key by itself.
    """

    name: str
    concurrency: int | None = None
    worker_concurrency: int | None = None
    rate_limit: int | None = None
    rate_period: float | None = None
    partitioned: bool = False
    on_conflict: OnConflict = "keep"


def queue_settings(
    name: str,
    *,
    concurrency: int | None = None,
    worker_concurrency: int | None = None,
    rate_limit: RateLimit | None = None,
    partitioned: bool = False,
    on_conflict: OnConflict = "keep",
) -> QueueSettings:
    """The settings of a queue.

    Raises:
        ConfigurationError: one of them cannot work, or they contradict each other.
    """
    require_queue_name(name)
    require_limits(concurrency, worker_concurrency)
    limit, period = checked_rate(rate_limit)
    if not isinstance(partitioned, bool):
        raise ConfigurationError("partitioned", partitioned, "True or False", "leave it out for a plain queue")
    if on_conflict not in ("keep", "update"):
        raise ConfigurationError("on_conflict", on_conflict, "'keep' or 'update'", "leave it out for 'keep'")
    return QueueSettings(name, concurrency, worker_concurrency, limit, period, partitioned, on_conflict)


def require_queue_name(name: object) -> None:
    """Raise ``ConfigurationError`` unless a queue of the user's may have this name."""
    if not isinstance(name, str) or not name.strip() or not is_storable(name) or len(name) > _LONGEST_NAME:
        raise ConfigurationError("queue", name, f"a text of 1 to {_LONGEST_NAME} characters", "name it for its work")
    if name.startswith(_RESERVED):
        raise ConfigurationError("queue", name, f"a name that does not begin with {_RESERVED!r}", "choose another one")


def queue_names(queues: Sequence[NamedQueue | str] | None) -> list[str] | None:
    """The names of these queues; None for all there are.

    Raises:
        ConfigurationError: it is no list of queues.
    """
    if queues is None:
        return None
    if isinstance(queues, str) or not isinstance(queues, Sequence):
        raise ConfigurationError("queues", queues, "a list of queues or their names", "leave it out for all queues")
    names = [queue if isinstance(queue, str) else queue.name for queue in queues]
    for name in names:
        require_queue_name(name)
    return names


def require_limits(concurrency: int | None, worker_concurrency: int | None) -> None:
    """Raise ``ConfigurationError`` unless both limits can hold together."""
    for field, value in (("concurrency", concurrency), ("worker_concurrency", worker_concurrency)):
        if value is not None:
            require_count(field, value)
    if concurrency is not None and worker_concurrency is not None and worker_concurrency > concurrency:
        raise ConfigurationError(
            "worker_concurrency",
            worker_concurrency,
            f"at most the concurrency of all processes together, {concurrency}",
            "lower it, or raise concurrency",
        )


def checked_rate(rate_limit: Any) -> tuple[int, float] | tuple[None, None]:
    """The limit and the period in seconds; raises as ``queue_settings``."""
    if rate_limit is None:
        return None, None
    if not isinstance(rate_limit, tuple) or len(rate_limit) != 2:
        raise ConfigurationError("rate_limit", rate_limit, "a RateLimit", "write RateLimit(limit=100, period=60)")
    limit, period = rate_limit
    require_count("rate_limit.limit", limit)
    length = seconds(period, field="rate_limit.period")
    if length <= 0:
        raise ConfigurationError("rate_limit.period", period, "more than zero", "write RateLimit(limit=100, period=60)")
    return limit, length
