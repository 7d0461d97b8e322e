"""Who has queues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.environment import ABSURD, DBOS, PGQUEUER, PROCRASTINATE, Package, interpreter_with
from benchmarks.queues.rival import Rival
from benchmarks.queues.task import QUEUE

OURS = Rival(
    "dbos_orm",
    "ours",
    crowd="INSERT INTO dbos_workflow_status (workflow_id, application, name, version, version_pinned, generation, "
    "status, input, output, serializer, recovery_attempts, queue, priority, sequence, created_at, enqueued_at, "
    "started_at, completed_at, updated_at) SELECT md5('{status}' || n), 'benchmark', 'workflow', "
    "CASE '{status}' WHEN 'SUCCESS' THEN '1' END, false, 'g', '{status}', '[]', '1', 'json', 0, 'crowd', 0, "
    "to_char(n, 'FM000000000'), now(), now(), now(), now(), now() FROM generate_series(1, {count}) AS numbers (n)",
    unfinished="EXISTS (SELECT FROM dbos_workflow_status WHERE status IN ('ENQUEUED', 'DELAYED', 'PENDING'))",
    finished="SELECT count(*) FROM dbos_workflow_status WHERE status = 'SUCCESS' AND queue = 'benchmark'",
)
OTHERS: tuple[tuple[Rival, Package], ...] = (
    (
        Rival(
            "DBOS",
            "dbos_transact",
            unfinished="EXISTS (SELECT FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'DELAYED', 'PENDING'))",
            finished="SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
        ),
        DBOS,
    ),
    (
        Rival(
            "procrastinate",
            "procrastinate_tasks",
            unfinished="EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
            finished="SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
            has_results=False,
            is_async=True,
        ),
        PROCRASTINATE,
    ),
    (
        Rival(
            "pgqueuer",
            "pgqueuer_jobs",
            unfinished="EXISTS (SELECT FROM pgqueuer)",
            finished="SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'",
            has_results=False,
            is_async=True,
        ),
        PGQUEUER,
    ),
    (
        Rival(
            "absurd",
            "absurd_tasks",
            unfinished=f"EXISTS (SELECT FROM absurd.t_{QUEUE} WHERE state NOT IN ('completed', 'failed', 'cancelled'))",
            finished=f"SELECT count(*) FROM absurd.t_{QUEUE} WHERE state = 'completed'",
        ),
        ABSURD,
    ),
)


def rivals(tell: Callable[[str], object], *, without_others: bool) -> list[Rival]:
    """This library first, and the others, each with its own environment.

    Raises:
        NoEnvironmentError: one of them could not be installed.
    """
    if without_others:
        return [OURS]
    return [OURS, *(replace(rival, interpreter=interpreter_with(package, tell)) for rival, package in OTHERS)]
