"""What is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.tasks import Task


@dataclass(frozen=True)
class Measurement:
    """One row of the tables: its name, in which ``--only`` looks, and the task."""

    name: str
    task: Task


MEASUREMENTS = (
    Measurement("serial, 0 steps", Task(300, 0)),
    Measurement("serial, 1 step", Task(300, 1)),
    Measurement("serial, 10 steps", Task(100, 10)),
    Measurement("serial, 1 transactional step", Task(300, 1, is_transactional=True)),
    Measurement("concurrent, 1 step", Task(2000, 1, is_concurrent=True)),
    Measurement("concurrent, 10 steps", Task(500, 10, is_concurrent=True)),
    Measurement("concurrent, 1 step, async", Task(2000, 1, is_concurrent=True, is_async=True)),
    Measurement("concurrent, 10 steps, async", Task(500, 10, is_concurrent=True, is_async=True)),
    Measurement("SQLite, serial, 10 steps", Task(100, 10, is_sqlite=True)),
    Measurement("SQLite, serial, 1 transactional step", Task(300, 1, is_transactional=True, is_sqlite=True)),
    Measurement("SQLite, concurrent, 10 steps", Task(500, 10, is_concurrent=True, is_sqlite=True)),
    Measurement(
        "SQLite, concurrent, 10 steps, async", Task(500, 10, is_concurrent=True, is_async=True, is_sqlite=True)
    ),
)


def measurements(*, scale: float, only: str) -> list[Measurement]:
    """Those with ``only`` in their name, with ``scale`` times the usual number of workflows."""
    return [
        replace(each, task=replace(each.task, workflows=max(1, round(each.task.workflows * scale))))
        for each in MEASUREMENTS
        if only in each.name
    ]
