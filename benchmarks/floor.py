"""The floor: raw psycopg2 doing the same durable writes, one commit each, without a library in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2

TABLES = """
CREATE TABLE floor_status (workflow_id text PRIMARY KEY, status text NOT NULL, owner text, input text, output text);
CREATE TABLE floor_step (workflow_id text, step_id int, owner text, name text, output text,
    PRIMARY KEY (workflow_id, step_id));
"""


def run_workflow(connection: Any, workflow_id: str, steps: int) -> None:
    """One workflow: a row, ``steps`` checkpoints, a final update; a commit for each."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO floor_status VALUES (%s, 'PENDING', 'me', '[]', NULL) RETURNING workflow_id", (workflow_id,)
        )
        for step in range(1, steps + 1):
            cursor.execute(
                "INSERT INTO floor_step SELECT workflow_id, %s, owner, 'step', '1' FROM floor_status "
                "WHERE workflow_id = %s AND owner = 'me' AND status = 'PENDING' FOR KEY SHARE "
                "ON CONFLICT DO NOTHING RETURNING step_id",
                (step, workflow_id),
            )
        cursor.execute(
            "UPDATE floor_status SET status = 'SUCCESS', output = '1' WHERE workflow_id = %s AND owner = 'me'",
            (workflow_id,),
        )


def connect(dsn: str) -> Any:
    """A connection in autocommit: every statement is a commit of its own."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    return connection


def serial(dsn: str, prefix: str, workflows: int, steps: int) -> float:
    """Seconds for workflows one after another."""
    connection = connect(dsn)
    began = time.perf_counter()
    for number in range(workflows):
        run_workflow(connection, f"{prefix}-{number}", steps)
    elapsed = time.perf_counter() - began
    connection.close()
    return elapsed


def concurrent(dsn: str, prefix: str, workflows: int, steps: int, *, threads: int = 32) -> float:
    """Seconds for workflows on several threads with a connection each."""
    numbers = iter(range(workflows))
    lock = threading.Lock()

    def work(connection: Any) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            run_workflow(connection, f"{prefix}-{number}", steps)

    connections = [connect(dsn) for _ in range(threads)]
    began = time.perf_counter()
    workers = [threading.Thread(target=work, args=(connection,)) for connection in connections]
    _all(workers, threading.Thread.start)
    _all(workers, threading.Thread.join)
    elapsed = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return elapsed


def _all(threads: list[threading.Thread], call: Callable[[threading.Thread], object]) -> None:
    for thread in threads:
        call(thread)
