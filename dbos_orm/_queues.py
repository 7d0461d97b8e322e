"""A queue as code declares it, to be named in the options of a start."""

from __future__ import annotations

from dataclasses import dataclass, field

from dbos_orm._queue_settings import QueueSettings, RateLimit
from dbos_orm._registry import Registry


@dataclass(frozen=True, slots=True, repr=False)
class Queue:
    """A queue of one application, with the limits that code declares; ``dbos.queue(...)`` makes it.

    Which limits hold now is in the database, where they may have been changed since.
    """

    application: str
    settings: QueueSettings
    _registry: Registry = field(compare=False)

    @property
    def name(self) -> str:
        """The name, by which every process of the application knows it."""
        return self.settings.name

    @property
    def concurrency(self) -> int | None:
        """How many of its workflows run at the same time, over all processes; None: no limit."""
        return self.settings.concurrency

    @property
    def worker_concurrency(self) -> int | None:
        """How many of its workflows run at the same time in one process; None: no limit."""
        return self.settings.worker_concurrency

    @property
    def rate_limit(self) -> RateLimit | None:
        """How many of its workflows begin within any period; None: no limit."""
        limit, period = self.settings.rate_limit, self.settings.rate_period
        return None if limit is None or period is None else RateLimit(limit, period)

    @property
    def partitioned(self) -> bool:
        """Whether each start names a partition, and each limit is meant for every partition by itself."""
        return self.settings.partitioned

    def belongs_to(self, registry: Registry) -> bool:
        """Whether it was declared in the application that has this registry."""
        return self._registry is registry

    def __repr__(self) -> str:
        said = {
            "concurrency": self.concurrency,
            "worker_concurrency": self.worker_concurrency,
            "rate_limit": self.rate_limit,
            "partitioned": self.partitioned or None,
        }
        limits = "".join(f", {name}={value!r}" for name, value in said.items() if value is not None)
        return f"<Queue {self.name!r} of {self.application!r}{limits}>"
