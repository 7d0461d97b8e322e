"""Starting and calling a workflow, from outside and from another workflow."""

from __future__ import annotations

from dataclasses import dataclass

from dbos_orm._context import Frame, Run, StepKey
from dbos_orm._flows.effects import Announce, Execute, Flow, Outcome, RunBody, Spawn
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.operating import Started, await_in_workflow, start_child
from dbos_orm._flows.placing import Offer, start_at_once
from dbos_orm._flows.queueing import require_place, start_debounced
from dbos_orm._flows.running import await_outcome, start
from dbos_orm._flows.stepping import record_outcome
from dbos_orm._outcomes import Raised
from dbos_orm._store.entries import RunStart
from dbos_orm._store.starting import Start
from dbos_orm.errors import ConflictingWorkflowError, NotLaunchedError, OwnershipLost, WorkflowCancelled


@dataclass(frozen=True, slots=True)
class Plan:
    """A start that is ready to be written.

    ``run`` is None where the caller's process will not execute it. ``place`` is the workflow that starts
    it, and the number of the step which that is. ``offer``: where it may begin although it has a queue.
    """

    start: Start
    body: RunBody
    run: Run | None
    given_id: bool
    place: tuple[Frame, StepKey] | None
    offer: Offer | None = None

    @property
    def entry(self) -> RunStart:
        """The row of the new workflow."""
        return self.start.entry


def start_workflow(env: Environment, plan: Plan) -> Flow[Started]:
    """Store a workflow and run it in the background, here or wherever it is claimed; or find the one in its place."""
    if plan.offer is not None:
        return (yield from start_at_once(env, plan.start, _isolated(env, plan), plan.offer))
    try:
        started = yield from _store(env, plan)
        if started.is_ours and plan.run is not None:
            plan.run.outer = None  # in the background it has a stack of its own
            yield from Spawn(plan.run, _isolated(env, plan))
        elif started.is_ours and plan.entry.queue is not None:
            yield from Announce(plan.entry.queue, plan.entry.name)
    except GeneratorExit:
        _drop(env, plan)
        raise
    return started


def call_workflow(env: Environment, plan: Plan, result_key: StepKey | None) -> Flow[Outcome]:
    """Store a workflow, run it here, and give its outcome; a known ID is awaited instead.

    In a workflow the outcome is recorded as a step of its own (``result_key``) behind the start.
    """
    assert plan.run is not None
    workflow_id, outer = plan.entry.workflow_id, plan.run.outer
    _refuse_waiting_for_itself(outer, workflow_id)
    try:
        is_ours = (yield from _store(env, plan)).is_ours
    except GeneratorExit:
        _drop(env, plan)
        raise
    if plan.place is None or result_key is None:
        if is_ours:
            return (yield from _execute_here(env, plan.run, plan.body))
        return (yield from await_outcome(env, workflow_id))
    frame = plan.place[0]
    if not is_ours:
        return (yield from await_in_workflow(env, frame, result_key, workflow_id, None))
    started_at = env.instant()
    outcome = yield from _execute_here(env, plan.run, plan.body)
    if isinstance(outcome, Raised) and not isinstance(outcome.error, Exception):
        return outcome
    return (yield from record_outcome(env, frame.run, result_key, "result", "result", outcome, 1, started_at))


def _drop(env: Environment, plan: Plan) -> None:
    """The caller was interrupted while its workflow was being stored: perhaps it is, and nobody executes it."""
    if plan.run is not None:
        env.drop(plan.run)


def _store(env: Environment, plan: Plan) -> Flow[Started]:
    """Store the workflow, or find the one in its place."""
    if plan.place is not None:
        frame, key = plan.place
        digest = env.digest_of(key, plan.body.arguments, plan.body.keywords)
        start_flow = start_child(env, frame, key, plan.start, plan.run, given_id=plan.given_id, digest=digest)
        return (yield from start_flow)
    entry = plan.entry
    if entry.queue is not None:
        yield from require_place(env, entry)
    if entry.is_debounced:
        placed = yield from start_debounced(env, entry)
        return Started(placed.workflow_id, placed.created, is_ours=placed.created)
    existing = yield from start(env, plan.start, plan.run)
    if existing is None:
        return Started(entry.workflow_id, created=True, is_ours=True)
    return Started(existing.workflow_id, created=False, is_ours=False)


def _execute_here(env: Environment, run: Run, body: RunBody) -> Flow[Outcome]:
    """Execute a run on the caller's stack; if it was ended from outside, its row says what its caller gets."""
    outcome = yield from Execute(run, body)
    if not isinstance(outcome, Raised) or outcome.error is not run.stop:
        return outcome
    if run.outer is not None:
        run.outer.require_live("result()")
    if run.failure is not None and run.outer is not None:
        # What keeps this process from running the child is no result of it that the parent may record.
        run.outer.stop_here(run.failure)
    if run.failure is not None:
        return Raised(run.failure)
    if isinstance(outcome.error, OwnershipLost) and run.launch.is_over:
        return Raised(NotLaunchedError(f"the end of workflow {run.workflow_id!r}", env.application))
    if isinstance(outcome.error, (OwnershipLost, WorkflowCancelled)):
        return (yield from await_outcome(env, run.workflow_id, run=run.outer))
    return outcome


def _isolated(env: Environment, plan: Plan) -> RunBody:
    """The body with arguments of its own: a background run shares no object with who started it."""
    arguments, keywords = env.codec.decode_arguments(plan.entry.input, plan.entry.serializer)
    return RunBody(plan.body.workflow, arguments, keywords)


def _refuse_waiting_for_itself(run: Run | None, workflow_id: str) -> None:
    while run is not None:
        if run.workflow_id == workflow_id:
            raise ConflictingWorkflowError(
                workflow_id,
                "caller",
                "a run on this very stack",
                "a direct call, which would wait for itself",
            )
        run = run.outer
