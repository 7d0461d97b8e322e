"""What a launch has found: for people who look at a process that has just begun."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from dbos_orm._context import Launch
from dbos_orm._drivers.binding import Binding
from dbos_orm._store import ownership, queues, schedules
from dbos_orm._store.queues import QueueInfo
from dbos_orm._store.schedules import StoredSchedule


@dataclass(frozen=True, slots=True)
class LaunchSummary:
    """A launched application. ``database`` comes without the password.

    ``stranded``: how many stored workflows, by name, wait for code that this process does not have.
    """

    application: str
    database: str
    executor_id: str
    at_once: int
    workflows: list[str]
    queues: list[QueueInfo]
    schedules: list[StoredSchedule]
    stranded: dict[str, int]


def summarize(binding: Binding, launch: Launch) -> LaunchSummary:
    """Ask the database what is there for a launch."""
    env, read = binding.environment, binding.gateway.read
    runnable = env.registry.runnable()
    return LaunchSummary(
        env.application,
        binding.engine.url.render_as_string(hide_password=True),
        launch.executor_id,
        binding.capacity,
        sorted({one.name for one in runnable}),
        read(partial(queues.look, application=env.application)),
        read(partial(schedules.find, application=env.application)),
        read(partial(ownership.count_stranded, application=env.application, runnable=runnable)),
    )
