"""What was claimed becomes runs of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from sqlalchemy.engine import Connection

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Launch, Run, logger
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows.effects import RunBody
from dbos_orm._identifiers import random_token
from dbos_orm._registry import RegisteredWorkflow
from dbos_orm._services.slots import Slots
from dbos_orm._store import ownership
from dbos_orm._store.claiming import Claimant, ClaimedRun
from dbos_orm._store.delays import hold
from dbos_orm.config import seconds
from dbos_orm.errors import MaxRecoveryAttemptsExceededError, OwnershipLost, SerializationError


class _DoubtfulClaim(NamedTuple):
    """A claim whose commit was not answered, and what is known to have been claimed by it."""

    claimant: Claimant
    since: float
    found: set[str]


class Intake:
    """Runs what this process has claimed. What it cannot run is handed over, held or given up, one by one."""

    def __init__(self, binding: Binding, launch: Launch) -> None:
        self.slots = Slots()
        self._binding = binding
        self._launch = launch
        self._registry = binding.environment.registry
        self._doubtful: list[_DoubtfulClaim] = []

    def claimant(self) -> Claimant:
        """Who claims next: this process, with a token of its own for each claim."""
        return Claimant(
            self._binding.environment.application,
            self._launch.executor_id,
            random_token(),
            self._registry.runnable(self._binding.takes),
        )

    def take(self, claimant: Claimant, claim: Callable[[], list[ClaimedRun]]) -> list[ClaimedRun]:
        """Claim once and run what was claimed; where the answer was lost, ``settle_doubtful`` looks it up."""
        try:
            claimed = claim()
        except BaseException:
            self._doubtful.append(_DoubtfulClaim(claimant, steady_seconds(), set()))
            raise
        self._run_all(claimed, claimant)
        return claimed

    def take_in_transaction(
        self, claimant: Claimant, verb: Callable[[Connection], list[ClaimedRun]]
    ) -> list[ClaimedRun]:
        """``take`` by a verb in a transaction of its own."""
        gateway = self._binding.gateway
        return self.take(claimant, lambda: gateway.blocking(lambda: gateway.transaction(verb)))

    def settle_doubtful(self) -> None:
        """Run what was claimed by claims whose commit was not answered.

        A server that has lost its client may still be about to commit: it is asked again for the length of a lease.
        """
        for doubtful in list(self._doubtful):
            claimant, since, found = doubtful
            verb = partial(ownership.find_claimed, dialect=self._binding.dialect, claimant=claimant)
            claimed = self._binding.gateway.read(verb)
            if steady_seconds() - since > seconds(self._binding.environment.config.lease):
                self._doubtful.remove(doubtful)
            # Each once, however it is by now: what was running when it was looked up may have ended since.
            new = [one for one in claimed if one.workflow_id not in found]
            found.update(one.workflow_id for one in new)
            self._run_all(new, claimant)

    def hold_unreadable(self) -> None:
        """Put aside what cannot be read here, for a process that can, or for a later day."""
        env, unreadable = self._binding.environment, self._binding.runs.unreadable
        while unreadable:
            try:
                run = unreadable.popleft()
            except IndexError:
                return  # The other thread that does this was faster.
            logger.error(
                "workflow %s %r is put aside for %g s, because this process cannot read it: %s",
                *(run.name, run.workflow_id, seconds(env.config.retry_unreadable), run.failure),
                extra={"workflow_id": run.workflow_id},
            )
            verb = partial(
                hold,
                dialect=self._binding.dialect,
                workflow_id=run.workflow_id,
                owner_token=run.owner_token,
                error=env.codec.encode_error(run.failure or OwnershipLost(run.workflow_id)),
                again_in=timedelta(seconds=seconds(env.config.retry_unreadable)),
            )
            try:
                self._binding.gateway.change(verb)
            except BaseException:
                unreadable.appendleft(run)
                raise

    def _run_all(self, claimed: Sequence[ClaimedRun], claimant: Claimant) -> None:
        for one in claimed:
            run = self._run_of(one, claimant.owner_token)
            try:
                self._run(one, run)
            except Exception as error:
                # What cannot be run here is handed over at the next tick; the rest of the claim goes on.
                logger.warning("workflow %s %r cannot be run here now: %s", one.name, one.workflow_id, error)
                self.slots.release(run)
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
            run.failure = error
            self._binding.runs.put_aside(run)
            return
        if claimed.queue is not None:
            self.slots.take(run, claimed.queue, claimed.partition_key)
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
