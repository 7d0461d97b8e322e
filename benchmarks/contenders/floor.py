"""The floor: raw psycopg2 that does the same durable writes with a commit each, on 32 connections if concurrent."""

from __future__ import annotations

from functools import partial
from typing import Any

import psycopg2

from benchmarks.application import create_tables, with_driver
from benchmarks.tasks import Task
from benchmarks.threads import share_out
from benchmarks.worker import Stopwatch, main

THREADS = 32

TABLES = """
CREATE TABLE IF NOT EXISTS floor_status (
    workflow_id text PRIMARY KEY, status text NOT NULL, owner text, input text, output text);
CREATE TABLE IF NOT EXISTS floor_step (
    workflow_id text, step_id int, owner text, name text, output text, PRIMARY KEY (workflow_id, step_id));
"""
START = "INSERT INTO floor_status VALUES (%s, 'PENDING', 'me', '[]', NULL)"
STEP = (
    "INSERT INTO floor_step SELECT workflow_id, %s, owner, 'step', '1' FROM floor_status "
    "WHERE workflow_id = %s AND owner = 'me' AND status = 'PENDING' FOR KEY SHARE "
    "ON CONFLICT DO NOTHING RETURNING step_id"
)
FINISH = "UPDATE floor_status SET status = 'SUCCESS', output = '1' WHERE workflow_id = %s AND owner = 'me'"
ITEM = "INSERT INTO benchmark_item (number) VALUES (%s) RETURNING id"


def work(task: Task, stopwatch: Stopwatch) -> None:
    """Do the task with threads that have a connection each."""
    prepare(task.url)
    connections = [connect(task.url) for _ in range(THREADS if task.is_concurrent else 1)]
    runners = [partial(_run_workflow, connection, task) for connection in connections]
    share_out(task.warm_up, runners)
    with stopwatch:
        share_out(task.workflows, runners)
    for connection in connections:
        connection.close()


def prepare(url: str) -> None:
    """Create the tables where they are missing."""
    create_tables(with_driver(url, "postgresql+psycopg2"))
    connection = connect(url)
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
    connection.close()


def connect(url: str) -> Any:
    """A connection in autocommit: every statement is a commit of its own."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    return connection


def _run_workflow(connection: Any, task: Task, workflow_id: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(START, (workflow_id,))
        for step in range(1, task.steps + 1):
            if task.is_transactional:
                cursor.execute("BEGIN")
                cursor.execute(ITEM, (step,))
            cursor.execute(STEP, (step, workflow_id))
            assert cursor.fetchone() == (step,)
            if task.is_transactional:
                cursor.execute("COMMIT")
        cursor.execute(FINISH, (workflow_id,))


if __name__ == "__main__":
    main(work)
