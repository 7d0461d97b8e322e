"""Schedules in the background: each slot becomes one run, whichever process sees it first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy.engine import Connection

from dbos_orm._clock import steady_seconds
from dbos_orm._context import logger
from dbos_orm._drivers.binding import Binding
from dbos_orm._services.due_slots import due_slots
from dbos_orm._services.scheduled_runs import clock_of, insert_runs, is_for_us, require_queue, run_of
from dbos_orm._services.service import Service
from dbos_orm._store import schedules
from dbos_orm._store.entries import RunStart
from dbos_orm._store.schedules import StoredSchedule
from dbos_orm.config import seconds
from dbos_orm.errors import ConfigurationError, DBOSError

_HORIZON_SECONDS: Final = 60.0
"""How far ahead it looks: what is due later is found by a later look."""
_SHORTEST_WAIT_SECONDS: Final = 0.001
_SCHEDULES_AT_ONCE: Final = 50
_SLOTS_AT_ONCE: Final = 100
_PROMPT: Final = timedelta(seconds=2)
"""A slot that is no older than this was not missed: another process may be about to start its run."""
_LONGEST_GAP: Final = timedelta(seconds=10)
"""Who has not looked for longer than this was away meanwhile (a lost database, a machine that slept)."""
_HELD_SECONDS: Final = 60.0
_HIDDEN_SECONDS: Final = 5.0
_SLACK_SECONDS: Final = 0.05
"""What another's clock and this one's may differ by, before it is worth to look again."""


class CronService(Service):
    """Starts the run of each slot when it is due, and asks the database nothing in between but what is new.

    The slot and its run are one transaction, with the schedule's row locked: of several processes one
    starts the run, and one that dies on the way leaves the slot to the others.
    """

    def __init__(self, binding: Binding) -> None:
        super().__init__(f"dbos-{binding.application.name}-cron")
        self._binding = binding
        self._registry = binding.application.registry
        self._interval = seconds(binding.application.config.tick)
        self._planned = 0.0
        self._last_look = 0.0
        self._is_hidden = False
        self._watched_since: datetime | None = None
        self._looked_at: datetime | None = None
        self._held: dict[str, float] = {}

    def heard(self, fires_in: float | None) -> None:
        """Take from who looks every second anyway how many seconds are left until any schedule is due.

        From then on nothing is asked between two slots.
        """
        self._interval = _HORIZON_SECONDS
        now = steady_seconds()
        if fires_in is None or now + fires_in >= self._planned - _SLACK_SECONDS:
            return
        # What is due and for other processes hides what comes next: it is worth a look now and then.
        if fires_in > 0 or not self._is_hidden or now - self._last_look > _HIDDEN_SECONDS:
            self.wake()

    def run_once(self) -> float:
        """Start what is due, and give the seconds until the next slot."""
        now, upcoming = self._binding.gateway.read(
            partial(
                schedules.find_upcoming,
                dialect=self._binding.dialect,
                application=self._binding.application.name,
                seconds=_HORIZON_SECONDS,
            )
        )
        self._watch(now)
        self._last_look = steady_seconds()
        ours = [one for one in upcoming if self._is_ours(one.schedule)]
        self._is_hidden = any(one.seconds <= 0 for one in upcoming if one not in ours)
        due = [one.schedule.name for one in ours if one.seconds <= 0]
        if due and self._start_due(due):
            return 0.0
        wait = min([self._interval, *(one.seconds for one in ours if one.seconds > 0)])
        if due:
            # Somebody else is at it, and may die on the way.
            wait = min(wait, seconds(self._binding.application.config.tick))
        self._planned = steady_seconds() + wait
        return max(wait, _SHORTEST_WAIT_SECONDS)

    def _watch(self, now: datetime) -> None:
        """Note since when this process has been looking without a longer gap."""
        if self._looked_at is None or self._watched_since is None or now - self._looked_at > _LONGEST_GAP:
            self._watched_since = now
        self._looked_at = now

    def _is_ours(self, schedule: StoredSchedule) -> bool:
        if self._held.get(schedule.name, 0.0) > steady_seconds():
            return False
        return is_for_us(self._registry, schedule)

    def _start_due(self, names: Sequence[str]) -> bool:
        """Start the runs of these schedules that nobody else is starting; True if there were any."""
        started = 0
        for start in range(0, len(names), _SCHEDULES_AT_ONCE):
            batch = names[start : start + _SCHEDULES_AT_ONCE]
            entries, count = self._binding.gateway.change(partial(self._start_batch, names=batch))
            started += count
            for queue, name in {(entry.queue, entry.name) for entry in entries}:
                if queue is not None:
                    self._binding.hints.announce(queue, name)
        return started > 0

    def _start_batch(self, connection: Connection, names: Sequence[str]) -> tuple[list[RunStart], int]:
        """One transaction: the runs, and how many schedules have moved on."""
        application, dialect = self._binding.application, self._binding.dialect
        now, locked = schedules.lock_due(connection, dialect, application.name, names)
        entries: list[RunStart] = []
        moved = 0
        for schedule in locked:
            try:
                found, next_slot = self._runs_of(schedule, now)
            except DBOSError as error:
                self._held[schedule.name] = steady_seconds() + _HELD_SECONDS
                logger.error("schedule %r stays where it is: %s", schedule.name, error)
                continue
            slot = schedule.next_fire_at
            assert slot is not None
            fired = found[-1][0] if found else None
            if schedules.advance(
                connection, dialect, application.name, schedule.name, slot=slot, next_slot=next_slot, fired=fired
            ):
                moved += 1
                entries += [entry for _, entry in found]
        insert_runs(connection, dialect, entries)
        return entries, moved

    def _runs_of(
        self, schedule: StoredSchedule, now: datetime
    ) -> tuple[list[tuple[datetime, RunStart]], datetime | None]:
        after, slot = clock_of(self._registry, schedule), schedule.next_fire_at
        assert slot is not None
        if after is None:
            raise ConfigurationError(
                "schedule", schedule.name, "one whose trigger this process declares", "launch the code that declares it"
            )
        watched_since = (self._watched_since or now) - _PROMPT
        due = due_slots(after, slot, now, watched_since=watched_since, catch_up=schedule.catch_up, limit=_SLOTS_AT_ONCE)
        application = self._binding.application
        return [(each, run_of(application, schedule, each, now)) for each in due.slots], due.next_slot


def declare_schedules(binding: Binding) -> None:
    """Bring the rows of the schedules that code declares to what it says.

    A changed time begins anew at the present. What is paused stays paused. A row that an earlier version of the code
    declared stays, and is not run.

    Raises:
        QueueNotFoundError: a schedule has a queue that nobody declares.
    """
    gone = binding.gateway.change(partial(_declare, binding=binding))
    if gone:
        logger.warning(
            "schedules %s were declared by code that is not here: they are kept, and this process does not run them; "
            "import their module before launch, or delete them with dbos.schedules.delete(name)",
            gone,
        )


def _declare(connection: Connection, binding: Binding) -> list[str]:
    application, dialect = binding.application, binding.dialect
    declared = application.registry.schedules
    for queue in sorted({one.queue for one in declared if one.queue is not None}):
        require_queue(connection, application.registry, application.name, queue)
    stored = {row.name: row for row in schedules.find(connection, application.name, lock=bool(declared))}
    now = schedules.present(connection, dialect) if declared else None
    for settings in declared:
        assert now is not None
        workflow_values = {
            "workflow_name": settings.workflow_name,
            "class_name": None,
            "config_name": None,
            "queue": settings.queue,
            "catch_up": settings.catch_up,
            "declared": True,
        }
        times = {"expression": settings.expression, "trigger": settings.trigger, "timezone": settings.timezone}
        row = stored.get(settings.name)
        if row is None:
            values = {**workflow_values, **times, "next_fire_at": settings.after(now)}
            schedules.insert(connection, dialect, application.name, settings.name, values)
            continue
        changed: dict[str, Any] = {
            name: value for name, value in {**workflow_values, **times}.items() if getattr(row, name) != value
        }
        if not row.declared:
            changed["context"] = None  # of who made it at run time, for another workflow perhaps
        if changed.keys() & times.keys() or row.next_fire_at is None:
            changed["next_fire_at"] = settings.after(now)
        if changed and changed != {"next_fire_at": None}:
            schedules.change(connection, dialect, application.name, settings.name, changed)
    return sorted(name for name, row in stored.items() if row.declared and application.registry.schedule(name) is None)
