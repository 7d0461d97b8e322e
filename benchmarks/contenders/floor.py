"""The floor: raw psycopg2 that does the same durable writes with a commit each, on 32 connections if concurrent."""

from __future__ import annotations

import secrets
import threading
from typing import Any

import psycopg2

from benchmarks.application import create_tables, with_driver
from benchmarks.tasks import Task
from benchmarks.worker import Stopwatch, main

THREADS = 32

TABLES = """
CREATE TABLE IF NOT EXISTS floor_status (
    workflow_id text PRIMARY KEY, status text NOT NULL, owner text, input text, output text);
CREATE TABLE IF NOT EXISTS floor_step (
    workflow_id text, step_id int, owner text, name text, output text, PRIMARY KEY (workflow_id, step_id));
"""
START = "INSERT INTO floor_status VALUES (%s, 'PENDING', 'me', '[]', NULL) RETURNING workflow_id"
STEP = (
    "INSERT INTO floor_step SELECT workflow_id, %s, owner, 'step', '1' FROM floor_status "
    "WHERE workflow_id = %s AND owner = 'me' AND status = 'PENDING' FOR KEY SHARE "
    "ON CONFLICT DO NOTHING RETURNING step_id"
)
FINISH = "UPDATE floor_status SET status = 'SUCCESS', output = '1' WHERE workflow_id = %s AND owner = 'me'"


def work(task: Task, stopwatch: Stopwatch) -> None:
    """Do the task with threads that have a connection each."""
    prepare(task.url)
    connections = [_connect(task.url) for _ in range(THREADS if task.is_concurrent else 1)]
    prefix = secrets.token_hex(8)
    for connection in connections:
        _run_workflow(connection, f"{prefix}-{id(connection)}", task)
    numbers = iter(range(task.workflows))
    lock = threading.Lock()

    def run(connection: Any) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            _run_workflow(connection, f"{prefix}-{number}", task)

    with stopwatch:
        if task.is_concurrent:
            run_threads([threading.Thread(target=run, args=(connection,)) for connection in connections])
        else:
            run(connections[0])
    for connection in connections:
        connection.close()


def prepare(url: str) -> None:
    """Create the tables where they are missing."""
    create_tables(with_driver(url, "postgresql+psycopg2"))
    connection = _connect(url)
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
    connection.close()


def run_threads(threads: list[threading.Thread]) -> None:
    """Start all threads, and return when all have ended."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _connect(url: str) -> Any:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    return connection


def _run_workflow(connection: Any, workflow_id: str, task: Task) -> None:
    """A row, ``steps`` records, a final update."""
    with connection.cursor() as cursor:
        cursor.execute(START, (workflow_id,))
        for step in range(1, task.steps + 1):
            if task.is_transactional:
                cursor.execute("BEGIN")
                cursor.execute("INSERT INTO benchmark_item (number) VALUES (%s) RETURNING id", (step,))
            cursor.execute(STEP, (step, workflow_id))
            assert cursor.fetchone() == (step,)
            if task.is_transactional:
                cursor.execute("COMMIT")
        cursor.execute(FINISH, (workflow_id,))


if __name__ == "__main__":
    main(work)
