"""The tick: once a second, all that a process must hear of from the database."""

from __future__ import annotations

from functools import partial

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Launch, Run
from dbos_orm._drivers.binding import Binding
from dbos_orm._services.dispatcher import DispatcherService
from dbos_orm._services.intake import Intake
from dbos_orm._services.recovery import Recovery
from dbos_orm._services.scheduler import CronService
from dbos_orm._services.service import Service
from dbos_orm._states import WorkflowState
from dbos_orm._store import ownership
from dbos_orm._store.overview import Overview, observe
from dbos_orm.config import seconds
from dbos_orm.errors import OwnershipLost, WorkflowCancelled, WorkflowTimeoutError

_BATCH = 500


class TickService(Service):
    """Asks the database one question a second, and a second one while workflows run here.

    It ends runs that were cancelled or taken over, lets deadlines pass, hands over what is in doubt, and
    gives recovery its overview. Deadlines wake it when they are due.
    """

    def __init__(
        self,
        binding: Binding,
        launch: Launch,
        recovery: Recovery,
        intake: Intake,
        dispatcher: DispatcherService,
        cron: CronService,
    ) -> None:
        super().__init__(f"dbos-{binding.environment.application}-tick")
        self._binding = binding
        self._launch = launch
        self._recovery = recovery
        self._intake = intake
        self._dispatcher = dispatcher
        self._cron = cron
        self._recorded_timeouts: set[tuple[str, str]] = set()
        self._interval = seconds(binding.environment.config.tick)

    def run_once(self) -> float:
        """Look around once."""
        self._expire_deadlines()
        self._end_stopped_runs()
        self._hand_over_dropped()
        self._intake.hold_unreadable()
        asked_at = steady_seconds()
        overview = self.look()
        self._dispatcher.see(overview, asked_at)
        self._cron.heard(overview.fires_in)
        if self._recovery.run_once(overview):
            return 0.0
        return self._next()

    def look(self) -> Overview:
        """Ask what there is to know about the other processes and the work for this one."""
        return self._binding.gateway.read(
            partial(
                observe,
                dialect=self._binding.dialect,
                application=self._binding.environment.application,
                executor_id=self._launch.executor_id,
            )
        )

    def _expire_deadlines(self) -> None:
        for run in self._binding.runs.all():
            run.expire_if_due()
            key = (run.workflow_id, run.owner_token)
            if run.is_timed_out and key not in self._recorded_timeouts:
                self._record_timeout(run)
                self._recorded_timeouts.add(key)
        self._recorded_timeouts &= {(run.workflow_id, run.owner_token) for run in self._binding.runs.all()}

    def _record_timeout(self, run: Run) -> None:
        """Tell those who await the workflow now, not when its step returns."""
        env = self._binding.environment
        error = env.codec.encode_error(WorkflowTimeoutError(run.workflow_id, run.deadline))
        self._binding.gateway.change(
            partial(
                ownership.cancel,
                dialect=self._binding.dialect,
                workflow_id=run.workflow_id,
                children=False,  # those that inherited the deadline keep it by themselves
                error=error,
            )
        )

    def _end_stopped_runs(self) -> None:
        owned = [(run.workflow_id, run.owner_token) for run in self._binding.runs.all() if run.stop is None]
        for start in range(0, len(owned), _BATCH):
            batch = owned[start : start + _BATCH]
            stopped = self._binding.gateway.read(partial(ownership.stopped_runs, owned=batch))
            for workflow_id, owner_token in batch:
                run = self._binding.runs.get(workflow_id)
                if workflow_id not in stopped or run is None or run.owner_token != owner_token:
                    continue
                if stopped[workflow_id] is WorkflowState.CANCELLED:
                    run.end_with(WorkflowCancelled(workflow_id))
                else:
                    run.end_with(OwnershipLost(workflow_id))

    def _hand_over_dropped(self) -> None:
        """A run that ended here because its ownership was in doubt: if it is ours after all, anybody may have it."""
        dropped = self._binding.runs.dropped
        while dropped and self._launch.is_valid:
            run = dropped[0]
            owned = [(run.workflow_id, run.owner_token)]
            self._binding.gateway.change(partial(ownership.hand_over, dialect=self._binding.dialect, owned=owned))
            dropped.popleft()

    def _next(self) -> float:
        now = steady_seconds()
        due = [run.expires - now for run in self._binding.runs.all() if run.expires is not None and run.stop is None]
        return max(0.0, min([self._interval, *due]))
