"""Workflows that nobody runs any more, or nobody yet: found and executed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sqlalchemy.engine import Connection

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Launch, Run, logger
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows.effects import RunBody
from dbos_orm._identifiers import random_token
from dbos_orm._registry import RegisteredWorkflow
from dbos_orm._services.leases import LeaseObserver
from dbos_orm._store import executors, ownership
from dbos_orm._store.entries import INTERNAL_QUEUE
from dbos_orm._store.executors import Overview
from dbos_orm._store.ownership import Claimant, ClaimedRun
from dbos_orm.errors import MaxRecoveryAttemptsExceededError, SerializationError

_BATCH: Final = 100
_FRUITLESS_SECONDS: Final = 5.0


class Recovery:
    """Takes over the runs of dead processes, and claims what waits without a queue, as far as there are free slots."""

    def __init__(self, binding: Binding, launch: Launch, observer: LeaseObserver | None = None) -> None:
        self._binding = binding
        self._launch = launch
        self._observer = observer
        self._registry = binding.environment.registry
        self._doubtful: list[Claimant] = []
        self._look_again = 0.0

    def run_once(self, overview: Overview) -> bool:
        """Do what ``overview`` shows; True if there may be more to do at once."""
        self._settle_doubtful()
        found_dead = self.expire_dead(overview)
        taken = 0
        if found_dead or (overview.is_abandoned and steady_seconds() >= self._look_again):
            taken += self._take_over()
        if overview.is_waiting or found_dead:
            taken += self.claim()
        return taken > 0 and self._binding.free > 0

    def expire_dead(self, overview: Overview) -> bool:
        """Declare dead the executors that are; True if any was."""
        found = False
        if self._observer is None:
            return False
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
        claimant = self._claimant()
        gateway, dialect = self._binding.gateway, self._binding.dialect
        gateway.change(partial(ownership.requeue_abandoned, dialect=dialect, claimant=claimant))
        claimed = self._claimed(
            claimant,
            partial(ownership.claim_abandoned, dialect=dialect, claimant=claimant, limit=self._free()),
        )
        gateway.change(partial(executors.remove_expired, application=claimant.application))
        # What is left may be for code that this process does not have: not a reason to try every second.
        self._look_again = 0.0 if claimed else steady_seconds() + _FRUITLESS_SECONDS
        return len(claimed)

    def claim(self) -> int:
        """Take workflows that wait without a queue, as many as there are free slots; give how many."""
        claimant = self._claimant()
        verb = partial(
            ownership.claim_enqueued,
            dialect=self._binding.dialect,
            claimant=claimant,
            queue=INTERNAL_QUEUE,
            limit=self._free(),
        )
        return len(self._claimed(claimant, verb))

    def _claimed(self, claimant: Claimant, verb: Callable[[Connection], list[ClaimedRun]]) -> list[ClaimedRun]:
        """Claim once and run what was claimed. A claim whose commit was not answered is looked up at the next tick."""
        gateway = self._binding.gateway
        self._doubtful.append(claimant)
        claimed = gateway.blocking(lambda: gateway.transaction(verb))
        self._doubtful.remove(claimant)
        self._run_all(claimed, claimant)
        return claimed

    def _settle_doubtful(self) -> None:
        while self._doubtful:
            claimant = self._doubtful[0]
            verb = partial(ownership.find_claimed, dialect=self._binding.dialect, claimant=claimant)
            claimed = self._binding.gateway.read(verb)
            self._doubtful.pop(0)
            self._run_all(claimed, claimant)

    def _free(self) -> int:
        return min(self._binding.free, _BATCH)

    def _claimant(self) -> Claimant:
        return Claimant(
            self._binding.environment.application,
            self._launch.executor_id,
            random_token(),
            self._registry.runnable(self._binding.takes),
        )

    def _run_all(self, claimed: Sequence[ClaimedRun], claimant: Claimant) -> None:
        for one in claimed:
            run = self._run_of(one, claimant.owner_token)
            try:
                self._run(one, run)
            except Exception as error:
                # What cannot be run here is handed over at the next tick; the rest of the claim goes on.
                logger.warning("workflow %s %r cannot be run here now: %s", one.name, one.workflow_id, error)
                self._binding.runs.drop(run)

    def _run_of(self, claimed: ClaimedRun, owner_token: str) -> Run:
        run = Run(
            claimed.workflow_id,
            claimed.name,
            owner_token,
            self._launch,
            self._workflow(claimed).is_async,
            claimed.generation,
            parent_id=claimed.parent_id,
            is_recovered=claimed.has_history,
            is_continued=claimed.was_begun,
        )
        run.limit(claimed.deadline, claimed.remaining)
        return run

    def _workflow(self, claimed: ClaimedRun) -> RegisteredWorkflow:
        return self._registry.workflow(claimed.name, claimed.class_name, claimed.config_name)

    def _run(self, claimed: ClaimedRun, run: Run) -> None:
        env = self._binding.environment
        workflow = self._workflow(claimed)
        limit = workflow.max_recovery_attempts or env.config.max_recovery_attempts
        if limit is not None and claimed.recovery_attempts > limit:
            self._give_up(claimed, run.owner_token)
            return
        try:
            arguments, keywords = env.codec.decode_arguments(claimed.input or "", claimed.serializer)
        except SerializationError as error:
            logger.error("workflow %s %r stays as it is: %s", claimed.name, claimed.workflow_id, error)
            self._binding.runs.unreadable.append(run)
            return
        self._binding.spawn(run, RunBody(workflow, arguments, keywords))

    def _give_up(self, claimed: ClaimedRun, owner_token: str) -> None:
        env = self._binding.environment
        attempts = claimed.recovery_attempts - 1
        error = MaxRecoveryAttemptsExceededError(
            claimed.workflow_id,
            attempts,
            f"{attempts} processes in a row died or lost it before a new step was recorded; "
            "look at what the next step does to its process",
        )
        logger.error("%s", error, extra={"workflow_id": claimed.workflow_id})
        self._binding.gateway.change(
            partial(
                ownership.give_up,
                dialect=self._binding.dialect,
                workflow_id=claimed.workflow_id,
                owner_token=owner_token,
                error=env.codec.encode_error(error),
            )
        )
