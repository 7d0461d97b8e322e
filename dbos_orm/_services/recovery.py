"""Workflows whose process is dead: found, and continued by this one."""

from __future__ import annotations

from functools import partial
from typing import Final

from dbos_orm._clock import steady_seconds
from dbos_orm._context import logger
from dbos_orm._drivers.binding import Binding
from dbos_orm._services.intake import Intake
from dbos_orm._services.leases import LeaseObserver
from dbos_orm._store import executors, ownership
from dbos_orm._store.overview import Overview

_BATCH: Final = 100
_FRUITLESS_SECONDS: Final = 5.0


class Recovery:
    """Takes over the runs of dead processes. Those that came from a queue go back to their place in it."""

    def __init__(self, binding: Binding, intake: Intake, observer: LeaseObserver) -> None:
        self._binding = binding
        self._intake = intake
        self._observer = observer
        self._look_again = 0.0

    def run_once(self, overview: Overview) -> bool:
        """Do what ``overview`` shows; True if there may be more to do at once."""
        self._intake.settle_doubtful()
        found_dead = self.expire_dead(overview)
        taken = 0
        if found_dead or (overview.is_abandoned and steady_seconds() >= self._look_again):
            taken += self._take_over()
        return taken > 0 and self._binding.free > 0

    def expire_dead(self, overview: Overview) -> bool:
        """Declare dead the executors that are; True if any was."""
        found = False
        for executor in self._observer.dead(overview.others):
            verb = partial(
                executors.expire,
                dialect=self._binding.dialect,
                executor_id=executor.executor_id,
                heartbeat=executor.heartbeat,
            )
            if self._binding.gateway.change(verb):
                logger.info("executor %s is dead; its workflows are continued", executor.executor_id)
                found = True
        return found

    def _take_over(self) -> int:
        claimant = self._intake.claimant()
        gateway, dialect = self._binding.gateway, self._binding.dialect
        requeued = gateway.change(partial(ownership.requeue_abandoned, dialect=dialect, claimant=claimant))
        for queue, name in requeued:
            self._binding.hints.announce(queue, name)
        limit = min(self._binding.free, _BATCH)
        verb = partial(ownership.claim_abandoned, dialect=dialect, claimant=claimant, limit=limit)
        claimed = self._intake.take_in_transaction(claimant, verb)
        gateway.change(partial(executors.remove_expired, application=claimant.application))
        # What is left may be for code that this process does not have: not a reason to try every second.
        self._look_again = 0.0 if claimed or requeued else steady_seconds() + _FRUITLESS_SECONDS
        return len(claimed) + len(requeued)
