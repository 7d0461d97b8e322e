"""From a call and its options to what is stored and what is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from dbos_orm._context import Frame, Launch, Run, StepKey, current_transaction, require_home
from dbos_orm._drivers.binding import Application
from dbos_orm._flows.calling import Plan
from dbos_orm._flows.effects import RunBody
from dbos_orm._flows.placing import Offer, Places
from dbos_orm._options import placement_of
from dbos_orm._registry import RegisteredWorkflow
from dbos_orm._runtime import Runtime
from dbos_orm._store.entries import INTERNAL_QUEUE, RunStart
from dbos_orm._store.starting import Start
from dbos_orm.config import seconds
from dbos_orm.errors import StartInStepError

_MICROSECONDS: Final = 1_000_000


def parent_frame(runtime: Runtime, name: str) -> Frame | None:
    """The frame of the workflow body that starts another workflow; None outside a workflow.

    Raises:
        StartInStepError: a step is running here; it would start another workflow each time it is tried.
        StepOutsideScopeError: the caller is a task or thread of its own.
    """
    frame = runtime.frame()
    if current_transaction.get() is not None:
        raise StartInStepError(name, "transaction" if frame is None or frame.step is None else frame.step.name)
    if frame is None:
        return None
    if frame.step is not None:
        raise StartInStepError(name, frame.step.name)
    require_home(frame, name)
    return frame


def plan(
    application: Application,
    workflow: RegisteredWorkflow,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    launch: Launch | None,
    place: tuple[Frame, StepKey] | None,
    places: Places | None = None,
) -> Plan:
    """Work out a start. With ``launch`` this process owns the new workflow, unless that waits in a queue; without it
    anybody may claim it.

    ``place``: the workflow that starts it, and the number of the step which that is. ``places``: where this
    process could run it at once although it has a queue.

    Raises:
        TypeError: the function does not take these arguments.
        SerializationError: an argument cannot be recorded.
    """
    parent = None if place is None else Parent(place[0].run, place[1].path, f"-{place[1].path}")
    payload = payload_of(application, workflow, arguments, keywords)
    entry = entry_of(application, workflow, payload, options, launch=launch, parent=parent)
    outer = None if parent is None else parent.run
    run = None
    if launch is not None and entry.owner_token is not None:
        inherits = entry.timeout is None and "deadline" not in options and not options.get("detached")
        run = _owned_run(entry, entry.owner_token, launch, workflow, outer, inherits=inherits)
    body = RunBody(workflow, arguments, keywords)
    offer = None
    if launch is not None and places is not None and place is None and _may_begin(entry, options):
        offer = _offer(application, entry, launch, workflow, places)
    return Plan(start_of(entry, options), body, run, "workflow_id" in options, place, offer)


def _may_begin(entry: RunStart, options: Mapping[str, Any]) -> bool:
    """Whether nothing but its queue keeps a workflow from beginning."""
    return (
        entry.owner_token is None
        and entry.delay is None
        and entry.partition_key is None
        and entry.deduplication_id is None
        and options.get("on_existing") != "raise"
    )


def _offer(
    application: Application, entry: RunStart, launch: Launch, workflow: RegisteredWorkflow, places: Places
) -> Offer | None:
    token, generation = application.identifiers.token(), application.identifiers.token()
    version = entry.version or workflow.version
    owned = replace(entry, generation=generation, owner_token=token, executor_id=launch.executor_id, version=version)
    run = _owned_run(owned, token, launch, workflow, None, inherits=False)
    return Offer(owned, run, places) if places.take(run, workflow, str(entry.queue)) else None


def start_of(entry: RunStart, options: Mapping[str, Any]) -> Start:
    """A row to write, with what is to be done about another one in its place."""
    return Start(entry, options.get("on_existing", "return"), options.get("on_duplicate", "raise"))


class Parent(NamedTuple):
    """Who starts a workflow: the run, the path of its step, and what the ID of the child has behind the run's."""

    run: Run
    step: str
    suffix: str

    @property
    def child_id(self) -> str:
        """The ID of the child, unless it is given another one."""
        return f"{self.run.workflow_id}{self.suffix}"


def payload_of(
    application: Application, workflow: RegisteredWorkflow, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> str:
    """The arguments of a call as they are recorded; raises as ``plan``."""
    return application.codec.encode_arguments(tuple(arguments), dict(keywords), signature=workflow.signature)


def entry_of(
    application: Application,
    workflow: RegisteredWorkflow,
    payload: str,
    options: Mapping[str, Any],
    *,
    launch: Launch | None,
    parent: Parent | None,
) -> RunStart:
    """The row of a new workflow with the arguments ``payload``.

    Raises:
        ConfigurationError: options that contradict each other.
    """
    place = placement_of(workflow, options, application.registry)
    if place.queue is not None:
        launch = None
    made_id = application.identifiers.workflow_id()
    child_id = None if parent is None else parent.child_id
    timeout = options.get("timeout", workflow.timeout)
    timeout_seconds = None if timeout is None else seconds(timeout)
    deadline = _deadline(options, None if parent is None else parent.run)
    pinned = options.get("version")
    attributes = options.get("attributes")
    return RunStart(
        workflow_id=options.get("workflow_id") or child_id or made_id,
        application=application.name,
        name=workflow.name,
        version=pinned or (None if launch is None else workflow.version),
        version_pinned=pinned is not None,
        generation=application.identifiers.token(),
        input=payload,
        serializer=application.codec.name,
        executor_id=None if launch is None else launch.executor_id,
        owner_token=None if launch is None else application.identifiers.token(),
        queue=INTERNAL_QUEUE if launch is None and place.queue is None else place.queue,
        timeout=None if timeout_seconds is None else round(timeout_seconds * _MICROSECONDS),
        deadline=None if deadline is None else deadline.astimezone(UTC).isoformat(timespec="microseconds"),
        parent_id=None if parent is None else parent.run.workflow_id,
        parent_step=None if parent is None else parent.step,
        attributes=None if attributes is None else json.dumps(attributes),
        class_name=workflow.class_name,
        config_name=workflow.config_name,
        sequence=made_id,
        priority=place.priority,
        partition_key=place.partition_key,
        deduplication_id=place.deduplication_id,
        delay=place.delay,
        is_debounced=place.is_debounced,
        longest_delay=place.longest_delay,
    )


def _deadline(options: Mapping[str, Any], outer: Run | None) -> datetime | None:
    given: datetime | None = options.get("deadline")
    inherited = None if outer is None or options.get("detached") else outer.deadline
    if given is not None and inherited is not None:
        return min(given, inherited)
    return given or inherited


def _owned_run(
    entry: RunStart, token: str, launch: Launch, workflow: RegisteredWorkflow, outer: Run | None, *, inherits: bool
) -> Run:
    run = Run(
        entry.workflow_id,
        workflow.name,
        token,
        launch,
        workflow.is_async,
        entry.generation,
        outer=outer,
        parent_id=entry.parent_id,
    )
    if inherits and outer is not None:
        run.deadline, run.expires = outer.deadline, outer.expires
    run.reads_deadline = not inherits and (entry.timeout is not None or entry.deadline is not None)
    return run
