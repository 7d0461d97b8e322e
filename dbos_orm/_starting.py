"""From a call and its options to what is stored and what is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypedDict

from dbos_orm._context import Frame, Launch, Run, StepKey, current_transaction, require_home
from dbos_orm._drivers.binding import Application
from dbos_orm._flows.calling import Plan
from dbos_orm._flows.effects import RunBody
from dbos_orm._registry import RegisteredWorkflow
from dbos_orm._runtime import Runtime
from dbos_orm._store.entries import INTERNAL_QUEUE, RunStart
from dbos_orm.config import Duration, is_storable, seconds
from dbos_orm.errors import ConfigurationError, StartInStepError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_MICROSECONDS: Final = 1_000_000
_LONGEST_ID: Final = 1000
"""In UTF-8: an index of PostgreSQL holds 2704 bytes, and the IDs of children are longer."""


class WorkflowOptions(TypedDict, total=False):
    """What may be said of one start, by ``workflow.options(...)``."""

    workflow_id: str
    """An idempotency key: starting a known ID again gives that workflow."""
    on_existing: Literal["return", "raise"]
    """``raise``: ``WorkflowExistsError`` for a known ID."""
    timeout: Duration | None
    """Cancelled this long after it began to run; None lifts the decorator's timeout."""
    deadline: datetime
    """Cancelled at this instant (aware)."""
    version: str
    """Run only by processes whose workflow has this version."""
    attributes: dict[str, Json]
    """Kept on the row, for filtering."""
    detached: bool
    """Do not inherit the deadline of the workflow that starts it."""


_KNOWN: Final = tuple(WorkflowOptions.__annotations__)


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, if each can work.

    Raises:
        ConfigurationError: it names the option.
    """
    for name, value in options.items():
        if name not in _KNOWN:
            raise ConfigurationError(name, value, f"an option of {sorted(_KNOWN)}", "leave it out")
        check = _CHECKS.get(name)
        if check is not None:
            check(value)
    return dict(options)


def _check_workflow_id(value: object) -> None:
    if not isinstance(value, str) or not is_storable(value) or not 0 < len(value.encode()) <= _LONGEST_ID:
        raise ConfigurationError(
            "workflow_id", value, f"a text of 1 to {_LONGEST_ID} bytes in UTF-8", "pass str(...) of your key"
        )


def _check_deadline(value: object) -> None:
    # The first and the last year cannot be told in every time zone: a row that cannot be read could never be claimed.
    if not isinstance(value, datetime) or value.utcoffset() is None or not 1 < value.year < 9999:
        raise ConfigurationError(
            "deadline",
            value,
            "a datetime with a time zone, in the years 2 to 9998",
            "pass for example datetime.now(UTC) + timedelta(hours=1); leave it out for none",
        )


def _check_timeout(value: Any) -> None:
    if value is not None and seconds(value, field="timeout") <= 0:
        raise ConfigurationError("timeout", value, "more than zero, or None", "leave it out for no timeout")


def _check_on_existing(value: object) -> None:
    if value not in ("return", "raise"):
        raise ConfigurationError("on_existing", value, "'return' or 'raise'", "leave it out for 'return'")


def _check_attributes(value: object) -> None:
    if not isinstance(value, dict) or any(not isinstance(key, str) for key in value):
        raise ConfigurationError("attributes", value, "a dict with text keys", "pass for example {'tenant': 7}")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError("attributes", value, f"plain JSON ({error})", "pass only JSON values") from error
    if not all(is_storable(text) for text in _texts_of(value)):
        raise ConfigurationError("attributes", value, "texts that a database can hold", "leave NUL characters out")


def _texts_of(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts_of(pair)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts_of(item)


def _check_version(value: object) -> None:
    if not isinstance(value, str) or not value or not is_storable(value):
        raise ConfigurationError("version", value, "a text", "leave it out to run with any process's own version")


def _check_detached(value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError("detached", value, "True or False", "leave it out to inherit the deadline")


_CHECKS: Final[dict[str, Callable[[Any], None]]] = {
    "workflow_id": _check_workflow_id,
    "deadline": _check_deadline,
    "timeout": _check_timeout,
    "on_existing": _check_on_existing,
    "attributes": _check_attributes,
    "version": _check_version,
    "detached": _check_detached,
}


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
) -> Plan:
    """Work out a start. With ``launch`` this process owns the new workflow, without it anybody may claim it.

    ``place``: the workflow that starts it, and the number of the step which that is.

    Raises:
        TypeError: the function does not take these arguments.
        SerializationError: an argument cannot be recorded.
    """
    parent = None if place is None else Parent(place[0].run, place[1].path, f"-{place[1].path}")
    entry = entry_of(application, workflow, arguments, keywords, options, launch=launch, parent=parent)
    outer = None if parent is None else parent.run
    run = None
    if launch is not None and entry.owner_token is not None:
        inherits = entry.timeout is None and "deadline" not in options and not options.get("detached")
        run = _owned_run(entry, entry.owner_token, launch, workflow, outer, inherits=inherits)
    body = RunBody(workflow, arguments, keywords)
    return Plan(entry, body, run, options.get("on_existing", "return"), "workflow_id" in options, place)


class Parent(NamedTuple):
    """Who starts a workflow: the run, the path of its step, and what the ID of the child has behind the run's."""

    run: Run
    step: str
    suffix: str


def entry_of(
    application: Application,
    workflow: RegisteredWorkflow,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    launch: Launch | None,
    parent: Parent | None,
) -> RunStart:
    """The row of a new workflow; raises as ``plan``, and

    Raises:
        ConfigurationError: options that contradict each other.
    """
    if options.get("on_existing") == "raise" and "workflow_id" not in options:
        raise ConfigurationError("on_existing", "raise", "a workflow_id with it", "a new ID never exists already")
    codec, made_id = application.codec, application.identifiers.workflow_id()
    payload = codec.encode_arguments(tuple(arguments), dict(keywords), signature=workflow.signature)
    child_id = None if parent is None else f"{parent.run.workflow_id}{parent.suffix}"
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
        serializer=codec.name,
        executor_id=None if launch is None else launch.executor_id,
        owner_token=None if launch is None else application.identifiers.token(),
        queue=None if launch is not None else INTERNAL_QUEUE,
        timeout=None if timeout_seconds is None else round(timeout_seconds * _MICROSECONDS),
        deadline=None if deadline is None else deadline.astimezone(UTC).isoformat(timespec="microseconds"),
        parent_id=None if parent is None else parent.run.workflow_id,
        parent_step=None if parent is None else parent.step,
        attributes=None if attributes is None else json.dumps(attributes),
        class_name=workflow.class_name,
        config_name=workflow.config_name,
        sequence=made_id,
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
