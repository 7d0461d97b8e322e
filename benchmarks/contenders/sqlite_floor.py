"""The floor on SQLite: ``sqlite3`` with a commit for each write, WAL and synchronous=FULL.

One connection, also for concurrent tasks: a SQLite file has one writer at a time.
"""

from __future__ import annotations

import sqlite3
from functools import partial

from sqlalchemy import make_url

from benchmarks.application import create_tables
from benchmarks.tasks import Task
from benchmarks.threads import share_out
from benchmarks.worker import Stopwatch, main

TABLES = """
CREATE TABLE IF NOT EXISTS floor_status (
    workflow_id text PRIMARY KEY, status text NOT NULL, owner text, input text, output text);
CREATE TABLE IF NOT EXISTS floor_step (
    workflow_id text, step_id int, owner text, name text, output text, PRIMARY KEY (workflow_id, step_id));
"""
START = "INSERT INTO floor_status VALUES (?, 'PENDING', 'me', '[]', NULL)"
STEP = (
    "INSERT INTO floor_step SELECT workflow_id, ?, owner, 'step', '1' FROM floor_status "
    "WHERE workflow_id = ? AND owner = 'me' AND status = 'PENDING' ON CONFLICT DO NOTHING"
)
FINISH = "UPDATE floor_status SET status = 'SUCCESS', output = '1' WHERE workflow_id = ? AND owner = 'me'"
ITEM = "INSERT INTO benchmark_item (number) VALUES (?)"


def work(task: Task, stopwatch: Stopwatch) -> None:
    """Do the task on one connection."""
    create_tables(task.url)
    connection = sqlite3.connect(make_url(task.url).database or "", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(TABLES)
    runners = [partial(_run_workflow, connection, task)]
    share_out(task.warm_up, runners)
    with stopwatch:
        share_out(task.workflows, runners)
    connection.close()


def _run_workflow(connection: sqlite3.Connection, task: Task, workflow_id: str) -> None:
    connection.execute(START, (workflow_id,))
    for step in range(1, task.steps + 1):
        if task.is_transactional:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(ITEM, (step,))
        assert connection.execute(STEP, (step, workflow_id)).rowcount == 1
        if task.is_transactional:
            connection.execute("COMMIT")
    connection.execute(FINISH, (workflow_id,))


if __name__ == "__main__":
    main(work)
