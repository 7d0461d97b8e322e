"""From many calls to what is stored of them in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from dbos_orm._calls import Call
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows.effects import Flow
from dbos_orm._flows.starting_many import NAME, start_children, start_many
from dbos_orm._outbox import AsyncScope, SyncScope, enclosing_transaction, sync_scope
from dbos_orm._runtime import Runtime
from dbos_orm._starting import Parent, entry_of, parent_frame, start_of
from dbos_orm._store.starting import Placed, Start
from dbos_orm._store.starting_many import StartAlike
from dbos_orm.errors import ConfigurationError

_OPERATION: Final = "start_many()"


def to_stage_many(
    runtime: Runtime, calls: Iterable[Call[Any]], scope: SyncScope | AsyncScope | None
) -> tuple[Session | Connection, list[StartAlike]] | None:
    """The starts in the transaction that is running here, or in that of ``scope``; None if there is neither.

    Raises:
        StartInStepError: a plain step is running here.
        SessionMisuseError: the starts would not be a part of what is running here.
    """
    given = None if scope is None else sync_scope(scope, _OPERATION)
    enclosing = enclosing_transaction(runtime, NAME, _OPERATION, given)
    if enclosing is None:
        return None if given is None else (given, _starts(runtime, calls, _no_parent))
    frame, session = runtime.frame(), sync_scope(enclosing.session, _OPERATION)
    if frame is None or frame.step is None:
        return session, _starts(runtime, calls, _no_parent)
    run, path = frame.run, frame.step.key.path
    return session, _starts(runtime, calls, lambda: Parent(run, path, f"-{path}-{enclosing.number_start()}"))


def to_start_many(runtime: Runtime, calls: Iterable[Call[Any]]) -> tuple[Binding, Flow[list[Placed]]]:
    """The flow that starts them; in a workflow its number is drawn now.

    Raises:
        NotBoundError: there is no database.
        StartInStepError: a transaction is running here that is no part of this application's.
    """
    binding = runtime.bound(_OPERATION)
    frame = parent_frame(runtime, NAME)
    if frame is None:
        return binding, start_many(binding.environment, _starts(runtime, calls, _no_parent))
    key, numbers = frame.scope.draw(), iter(range(1, 2**31))
    run, path = frame.run, key.path
    starts = _starts(runtime, calls, lambda: Parent(run, path, f"-{path}-{next(numbers)}"))
    return binding, start_children(binding.environment, frame, key, starts)


class _Named(Protocol):
    workflow_id: str


H = TypeVar("H", bound=_Named)


def once_each(handles: Sequence[H]) -> list[H]:
    """For each of them the first one that is of the same workflow."""
    first: dict[str, H] = {}
    return [first.setdefault(one.workflow_id, one) for one in handles]


def _no_parent() -> Parent | None:
    return None


def _starts(runtime: Runtime, calls: Iterable[object], parent: Callable[[], Parent | None]) -> list[StartAlike]:
    application = runtime.application
    identifiers = application.identifiers
    known = list(calls)
    # Calls of one workflow object have one dict of options.
    patterns: dict[tuple[int, int], Start] = {}
    found = []
    for call in known:
        if not isinstance(call, Call) or call.registry is not application.registry:
            expected = f"calls of workflows of application {application.name!r}"
            raise ConfigurationError("calls", call, expected, "make each with workflow.call(...)")
        key, outer = (id(call.workflow), id(call.options)), parent()
        pattern = patterns.get(key)
        if pattern is None:
            entry = entry_of(application, call.workflow, call.payload, call.options, launch=None, parent=outer)
            pattern = patterns[key] = start_of(entry, call.options)
        made_id = identifiers.workflow_id()
        workflow_id = call.options.get("workflow_id") or (made_id if outer is None else outer.child_id)
        found.append(StartAlike(pattern, workflow_id, identifiers.token(), call.payload, made_id))
    return found
