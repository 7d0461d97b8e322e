"""What the tests ask a database of the books: what was recorded, and what is in the books themselves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from dbos_orm import WorkflowState
from dbos_orm.models import Executor, StepAttempt, StepOutput, WorkflowStatus
from tests.acceptance.books import BRIEF_STEPS, Account, Base, Note, Posting, World
from tests.databases import TestDatabase

LIVE = (WorkflowState.PENDING, WorkflowState.ENQUEUED)


class Ledger:
    """Reads a database over a connection of its own, which no proxy and no restart stands before."""

    def __init__(self, database: TestDatabase) -> None:
        self.database = database
        self._engine = database.make_engine(pool_pre_ping=True)
        Base.metadata.create_all(self._engine)

    @property
    def address(self) -> str:
        return self.database.url.render_as_string(hide_password=False)

    def statuses(self) -> dict[str, WorkflowState]:
        with Session(self._engine) as session:
            rows = session.execute(select(WorkflowStatus.workflow_id, WorkflowStatus.status))
            return {row.workflow_id: WorkflowState(row.status) for row in rows}

    def unfinished(self) -> list[str]:
        return [workflow_id for workflow_id, status in self.statuses().items() if status in LIVE]

    def count_by_status(self) -> Counter[WorkflowState]:
        return Counter(self.statuses().values())

    def accounts(self) -> dict[str, int]:
        with Session(self._engine) as session:
            return {account.name: account.postings for account in session.scalars(select(Account))}

    def postings(self) -> int:
        with Session(self._engine) as session:
            return len(session.scalars(select(Posting)).all())

    def notes(self) -> list[str]:
        with Session(self._engine) as session:
            return list(session.scalars(select(Note.text)))

    def errors_of_steps(self) -> list[str | None]:
        """What is recorded as a step's error, failed attempts included."""
        with Session(self._engine) as session:
            errors = session.scalars(select(StepOutput.error).where(StepOutput.error.is_not(None)))
            return [*errors, *session.scalars(select(StepAttempt.error))]

    def steps(self, workflow_id: str) -> list[tuple[int, str]]:
        with Session(self._engine) as session:
            rows = session.execute(
                select(StepOutput.step_id, StepOutput.name)
                .where(StepOutput.workflow_id == workflow_id)
                .order_by(StepOutput.scope, StepOutput.step_id)
            )
            return [(row.step_id, row.name) for row in rows]

    def output(self, workflow_id: str, step_id: int) -> str | None:
        with Session(self._engine) as session:
            return session.get_one(StepOutput, (workflow_id, "", step_id)).output

    def row(self, workflow_id: str) -> WorkflowStatus:
        with Session(self._engine) as session:
            return session.get_one(WorkflowStatus, workflow_id)

    def executors(self) -> dict[str, bool]:
        """Every executor, and whether it counts as alive."""
        with Session(self._engine) as session:
            return {row.executor_id: row.expired_at is None for row in session.scalars(select(Executor))}

    def heartbeat(self, executor_id: str) -> int:
        with Session(self._engine) as session:
            return session.get_one(Executor, executor_id).heartbeat

    def waits_for_a_lock(self) -> bool:
        """Whether somebody waits for another transaction of this PostgreSQL database."""
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with Session(self._engine) as session:
            return bool(session.scalar(waiting))

    def everything(self) -> dict[str, list[Any]]:
        """All rows that a workflow or a transactional step writes, for comparing two moments."""
        tables = ("dbos_workflow_status", "dbos_step_output", "dbos_step_attempt", "posting", "account", "note")
        with Session(self._engine) as session:
            return {table: sorted(map(repr, session.execute(text(f"SELECT * FROM {table}")))) for table in tables}

    def check_brief(self, workflow_ids: Collection[str], world: World) -> None:
        """These ``brief`` workflows, and no others, did everything; no step's value changed after it was seen."""
        assert self.statuses() == dict.fromkeys(workflow_ids, WorkflowState.SUCCESS)
        self.check_postings(dict.fromkeys(workflow_ids, BRIEF_STEPS))
        visits = world.visits
        steps = [f"{workflow_id} {number}" for workflow_id in workflow_ids for number in range(BRIEF_STEPS)]
        assert all(visits[step] >= 1 for step in steps)
        with Session(self._engine) as session:
            rows = session.execute(
                select(StepOutput.workflow_id, StepOutput.step_id, StepOutput.output).where(StepOutput.name == "visit")
            )
            recorded = {(f"{row.workflow_id} {row.step_id // 2}", json.loads(row.output)) for row in rows}
        assert {step for step, _ in recorded} == set(steps)
        assert world.acknowledged <= recorded, "a value that a workflow has seen is not what is recorded"
        assert self.errors_of_steps() == []

    def check_postings(self, accounts: dict[str, int]) -> None:
        """Every account counts what it should, and there are as many postings: their keys are unique."""
        assert self.accounts() == accounts
        assert self.postings() == sum(accounts.values())
