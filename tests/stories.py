"""What the database tells of a tree of workflows, so that two runs of the same code can be compared."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from dbos_orm.models import StepAttempt, StepOutput, WorkflowStatus
from dbos_orm.serialization import Codec
from tests.dropped_workflows import Posting

_DIFFERENT_EACH_TIME = (
    (re.compile(r"UUID\('[0-9a-f-]{36}'\)"), "<uuid>"),
    (re.compile(r"datetime\.datetime\([^()]*\)"), "<instant>"),
    (re.compile(r"'\d{4}-\d\d-\d\dT[\d:.]+\+00:00'"), "<instant>"),
    (re.compile(r"executor_id='[^']*'"), "<executor>"),
    (re.compile(r"recovery_attempts=\d+"), "<recovery attempts>"),
)


@dataclass
class Story:
    """One tree: its workflows, their steps, failed attempts, and the user's rows; IDs begin with ``<root>``."""

    workflows: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    steps: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)
    attempts: dict[tuple[str, str, int], str] = field(default_factory=dict)
    postings: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def differences(self, other: Story) -> dict[object, object]:
        """What this one and another one do not tell alike, and what each of them tells."""
        mine, others = ({**s.workflows, **s.steps, **s.attempts, **s.postings} for s in (self, other))
        return {key: (mine.get(key), others.get(key)) for key in mine | others if mine.get(key) != others.get(key)}


def root_of(workflow_id: str) -> str:
    """The ID of the workflow at the root of the tree, given that those below begin with it and a hyphen."""
    return workflow_id.partition("-")[0]


def stories(engines: Sequence[Engine], codec: Codec) -> dict[str, Story]:
    """Every tree of workflows in the first database, by the ID of its root, with the user's rows in all of them."""
    found: dict[str, Story] = defaultdict(Story)
    with Session(engines[0]) as session:
        for run in session.scalars(select(WorkflowStatus)):
            root = root_of(run.workflow_id)
            outcome = _outcome(codec, root, run)
            story = (run.name, run.status, outcome, _named(root, run.parent_id), run.parent_step)
            found[root].workflows[_named(root, run.workflow_id)] = story
        for step in session.scalars(select(StepOutput)):
            root = root_of(step.workflow_id)
            outcome = _outcome(codec, root, step)
            # How often a transaction was tried is what only the last process knows.
            attempts = 0 if step.kind == "transaction" else step.attempts
            told = (step.name, step.kind, outcome, _named(root, step.child_id), attempts)
            found[root].steps[_named(root, step.workflow_id), step.path] = told
        for attempt in session.scalars(select(StepAttempt)):
            root = root_of(attempt.workflow_id)
            key = (_named(root, attempt.workflow_id), _path_of(attempt), attempt.attempt)
            found[root].attempts[key] = _outcome(codec, root, attempt)
    for engine in engines:
        with Session(engine) as session:
            for posting in session.scalars(select(Posting)):
                root = root_of(posting.workflow_id)
                found[root].postings[_named(root, posting.workflow_id), posting.path, posting.note] += 1
    return dict(found)


def recorded_attempts(engine: Engine) -> set[tuple[str, str, int]]:
    """Of the steps and of the failed attempts that are recorded: workflow ID, path, attempt."""
    with Session(engine) as session:
        steps = {(step.workflow_id, step.path, step.attempts) for step in session.scalars(select(StepOutput))}
        attempts = session.scalars(select(StepAttempt))
        return steps | {(one.workflow_id, _path_of(one), one.attempt) for one in attempts}


def _path_of(attempt: StepAttempt) -> str:
    return f"{attempt.scope}.{attempt.step_id}".lstrip(".")


def _named(root: str, workflow_id: str | None) -> str:
    return "" if workflow_id is None else workflow_id.replace(root, "<root>", 1)


def _outcome(codec: Codec, root: str, row: Any) -> str:
    """The value or error as text, without what differs between any two runs."""
    if row.error is not None:
        text = told_of_error(codec.decode_error(row.error, row.serializer))
    elif getattr(row, "output", None) is None:
        return "nothing"
    else:
        text = f"returned {codec.decode(row.output, row.serializer)!r}"
    for pattern, name in _DIFFERENT_EACH_TIME:
        text = pattern.sub(name, text)
    return text.replace(root, "<root>")


def told_of_error(error: BaseException) -> str:
    """An error as text: its type and its message."""
    return f"raised {type(error).__name__}: {error}"
