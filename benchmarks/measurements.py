"""What is measured."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.tasks import Task


@dataclass(frozen=True)
class Measurement:
    """One row of the table: its name, for which ``--only`` looks, and the task."""

    name: str
    task: Task
    is_sqlite: bool = False


def measurements(scale: float) -> list[Measurement]:
    """All of them, with ``scale`` times the usual number of workflows."""

    def scaled(number: int) -> int:
        return max(1, round(number * scale))

    return [
        Measurement("serial, 0 steps", Task(scaled(300), 0)),
        Measurement("serial, 1 step", Task(scaled(300), 1)),
        Measurement("serial, 10 steps", Task(scaled(100), 10)),
        Measurement("serial, 1 transactional step", Task(scaled(300), 1, is_transactional=True)),
        Measurement("concurrent, 1 step", Task(scaled(2000), 1, is_concurrent=True)),
        Measurement("concurrent, 10 steps", Task(scaled(500), 10, is_concurrent=True)),
        Measurement("concurrent, 1 step, async", Task(scaled(2000), 1, is_concurrent=True, is_async=True)),
        Measurement("concurrent, 10 steps, async", Task(scaled(500), 10, is_concurrent=True, is_async=True)),
    ]
