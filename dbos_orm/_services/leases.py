"""Signs of life of this process, and what the signs of others mean."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Launch, logger
from dbos_orm._drivers.binding import Binding
from dbos_orm._identifiers import executor_id
from dbos_orm._services.process_identity import identify_process, is_provably_dead
from dbos_orm._services.service import Service
from dbos_orm._store import executors
from dbos_orm._store.executors import ObservedExecutor
from dbos_orm.config import Config, seconds
from dbos_orm.errors import OwnershipLost


class LeaseService(Service):
    """Renews the lease of this process, on a thread and a connection that nothing else uses."""

    retry_seconds = 0.5

    def __init__(self, binding: Binding, launch: Launch) -> None:
        super().__init__(f"dbos-{binding.environment.application}-heartbeat")
        config = binding.environment.config
        self._binding = binding
        self._launch = launch
        self._lease = seconds(config.lease)
        self._heartbeat = seconds(config.heartbeat)
        self.identity = identify_process()
        self._steady_since = steady_seconds()
        self._last_renewal = steady_seconds()

    @property
    def steady_since(self) -> float:
        """Since when every renewal came on time; now, if one is overdue.

        Only since then has this process been able to tell the silence of another one from its own trouble.
        """
        now = steady_seconds()
        return now if self._is_late(now) else self._steady_since

    def register(self, executor_id: str | None = None) -> None:
        """Add this process to the executors of the application; under a new ID, which counts once it is listed."""
        sent, executor_id = steady_seconds(), executor_id or self._launch.executor_id
        verb = partial(
            executors.register,
            dialect=self._binding.dialect,
            executor_id=executor_id,
            application=self._binding.environment.application,
            lease=timedelta(seconds=self._lease),
            identity=self.identity,
            library_version=_library_version(),
        )
        self._binding.heartbeat_gateway.change(verb)
        self._launch.executor_id = executor_id
        self._launch.lease_ends = sent + self._lease
        self._last_renewal = self._steady_since = sent

    def run_once(self) -> float:
        """Renew; a process that was declared dead meanwhile drops its runs and goes on under a new name."""
        sent = steady_seconds()
        gateway, dialect = self._binding.heartbeat_gateway, self._binding.dialect
        verb = partial(executors.renew, dialect=dialect, executor_id=self._launch.executor_id)
        # Once, not patiently: the time it was sent is what counts.
        is_alive = gateway.blocking(lambda: gateway.transaction(verb))
        if not is_alive:
            self._begin_again()
            return self._heartbeat
        if self._is_late(sent) or steady_seconds() - sent > self._heartbeat:
            self._steady_since = sent
        self._last_renewal = sent
        self._launch.lease_ends = sent + self._lease
        return self._heartbeat

    def _is_late(self, now: float) -> bool:
        return now - self._last_renewal > 1.5 * self._heartbeat

    def _begin_again(self) -> None:
        logger.warning(
            "executor %s was declared dead after a silence longer than its lease of %g s; "
            "others continue its workflows, it goes on with new ones",
            self._launch.executor_id,
            self._lease,
            extra={"executor_id": self._launch.executor_id},
        )
        for run in self._binding.runs.all():
            run.end_with(OwnershipLost(run.workflow_id))
        self.register(new_executor_id(self._binding.environment.config))


def new_executor_id(config: Config) -> str:
    """A name for a launch, behind the prefix that the settings may give."""
    return executor_id() if config.executor_id is None else f"{config.executor_id}-{executor_id()}"


class LeaseObserver:
    """Decides who is dead: at once with a proof, else after a whole lease of silence, seen from beginning to end."""

    def __init__(self, leases: LeaseService) -> None:
        self._leases = leases
        self._seen: dict[str, tuple[int, float]] = {}

    def dead(self, observed: Iterable[ObservedExecutor]) -> list[ObservedExecutor]:
        """Those of the observed executors that are dead."""
        now = steady_seconds()
        seen: dict[str, tuple[int, float]] = {}
        dead = []
        for executor in observed:
            heartbeat, since = self._seen.get(executor.executor_id, (executor.heartbeat, now))
            if heartbeat != executor.heartbeat:
                since = now
            # What was silent while this process had trouble of its own proves nothing: count from its end.
            since = max(since, self._leases.steady_since)
            seen[executor.executor_id] = (executor.heartbeat, since)
            is_silent = now - since > executor.lease.total_seconds()
            if is_silent or is_provably_dead(executor, self._leases.identity):
                dead.append(executor)
        self._seen = seen
        return dead


def _library_version() -> str:
    try:
        return version("dbos_orm")
    except PackageNotFoundError:
        return "unknown"
