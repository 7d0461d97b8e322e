"""What may be written to a workflow's history: values, encoded in the caller's thread.

Nobody changes an entry; it is not frozen because making a frozen object takes four times as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

INTERNAL_QUEUE: Final = "_dbos_internal"
"""Where a workflow waits that was started without a queue and has no owner yet."""
DEBOUNCE_PREFIX: Final = "_dbos_debounce:"
"""Stands in front of the deduplication ID of a debounced workflow, which it loses when it becomes ENQUEUED."""

Kind: TypeAlias = Literal["step", "transaction", "sleep", "child", "result", "now", "status"]


@dataclass(slots=True, eq=False)
class RunStart:
    """A new workflow. With an owner it is PENDING at once, without one ENQUEUED, or DELAYED by ``delay`` microseconds.

    ``generation`` is made by the writer: a row with the same one is this very write. ``is_debounced``: its
    ``deduplication_id`` is a key, and a row that waits with that key gets its input; for ``longest_delay`` microseconds
    at most, if that is given.
    """

    workflow_id: str
    application: str
    name: str
    version: str | None
    version_pinned: bool
    generation: str
    input: str
    serializer: str
    executor_id: str | None
    owner_token: str | None
    queue: str | None
    timeout: int | None
    deadline: str | None
    parent_id: str | None
    parent_step: str | None
    attributes: str | None
    class_name: str | None
    config_name: str | None
    sequence: str
    priority: int = 0
    partition_key: str | None = None
    deduplication_id: str | None = None
    delay: int | None = None
    schedule: str | None = None
    is_debounced: bool = False
    longest_delay: int | None = None


@dataclass(slots=True, eq=False)
class StepEntry:
    """The outcome of a step. ``child``: the workflow that the step started, written with it or not at all.

    ``delay`` (microseconds) makes it a wait: ``wake_at`` is set that long after the instant of the write.
    ``digest`` tells its arguments from others.
    """

    workflow_id: str
    scope: str
    step_id: int
    owner_token: str
    write_id: int
    name: str
    kind: Kind
    output: str | None
    error: str | None
    serializer: str
    attempts: int
    started_at: str
    child_id: str | None = None
    delay: int | None = None
    child: RunStart | None = None
    digest: str | None = None


@dataclass(slots=True, eq=False)
class AttemptEntry:
    """A failed attempt of a step that will be tried again ``delay`` microseconds later."""

    workflow_id: str
    scope: str
    step_id: int
    attempt: int
    owner_token: str
    write_id: int
    name: str
    error: str
    serializer: str
    started_at: str
    delay: int


@dataclass(slots=True, eq=False)
class RunFinish:
    """The outcome of a workflow: it becomes SUCCESS, or ERROR if there is an ``error``."""

    workflow_id: str
    owner_token: str
    status: str
    output: str | None
    error: str | None
    serializer: str


@dataclass(slots=True, eq=False)
class OutputEntry:
    """The outcome of a transactional step, for a database that has its rows but not the workflow.

    ``generation`` is the workflow's: a new one does not meet what an earlier one left. ``is_contested``: another
    process may hold the key, so that waiting for it is bounded.
    """

    workflow_id: str
    generation: str
    scope: str
    step_id: int
    owner_token: str
    write_id: int
    name: str
    output: str | None
    error: str | None
    serializer: str
    started_at: str
    digest: str | None
    is_contested: bool


Entry: TypeAlias = RunStart | StepEntry | AttemptEntry | RunFinish
