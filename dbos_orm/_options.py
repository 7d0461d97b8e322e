"""What may be said of one start, and the checks of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypedDict

from dbos_orm._queue_settings import Debounce
from dbos_orm._queues import Queue
from dbos_orm._registry import RegisteredWorkflow, Registry
from dbos_orm._store.entries import DEBOUNCE_PREFIX, INTERNAL_QUEUE
from dbos_orm.config import Duration, is_storable, seconds
from dbos_orm.errors import ConfigurationError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_MICROSECONDS: Final = 1_000_000
_LONGEST_ID: Final = 1000
"""In UTF-8: an index of PostgreSQL holds 2704 bytes, and the IDs of children are longer."""
_LARGEST_PRIORITY: Final = 2**31 - 1
_RESERVED: Final = "_dbos"


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
    queue: Queue | str
    """Where it waits for its turn, instead of the decorator's queue."""
    priority: int
    """In its queue, lower numbers come first; 0 by default, 32 bits."""
    deduplication_id: str
    """At most one live workflow of the queue has it."""
    on_duplicate: Literal["raise", "return"]
    """If one has it already: ``DeduplicationError``, or (``return``) the handle of that one."""
    partition_key: str
    """The partition, in a partitioned queue."""
    delay: Duration
    """Begins no sooner than this long after the start."""
    debounce: Debounce
    """Starts with the same key become one, which begins when they have stopped coming."""


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


def _check_queue(value: object) -> None:
    if not isinstance(value, (Queue, str)) or not (value if isinstance(value, str) else value.name):
        raise ConfigurationError(
            "queue", value, "a queue or its name", 'pass dbos.queue("name"), or leave it out for no queue'
        )
    if isinstance(value, str) and (value.startswith(_RESERVED) or not is_storable(value)):
        expected = f"a name that a queue can have, which does not begin with {_RESERVED!r}"
        raise ConfigurationError("queue", value, expected, "leave it out for no queue")


def _check_priority(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST_PRIORITY:
        raise ConfigurationError("priority", value, "a whole number of 32 bits", "lower ones come first; 0 is usual")


def _check_deduplication_id(value: object) -> None:
    _require_key("deduplication_id", value)


def _check_partition_key(value: object) -> None:
    _require_key("partition_key", value)


def _require_key(field: str, value: object) -> None:
    if not isinstance(value, str) or not is_storable(value) or not 0 < len(value.encode()) <= _LONGEST_ID:
        raise ConfigurationError(
            field, value, f"a text of 1 to {_LONGEST_ID} bytes in UTF-8", "pass str(...) of your key"
        )
    if value.startswith(_RESERVED):
        raise ConfigurationError(field, value, f"a text that does not begin with {_RESERVED!r}", "choose another one")


def _check_on_duplicate(value: object) -> None:
    if value not in ("return", "raise"):
        raise ConfigurationError("on_duplicate", value, "'return' or 'raise'", "leave it out for 'raise'")


def _check_delay(value: object) -> None:
    if seconds(value, field="delay") < 0:
        raise ConfigurationError("delay", value, "zero or more", "leave it out to begin as soon as possible")


def _check_debounce(value: object) -> None:
    if not isinstance(value, Debounce):
        raise ConfigurationError("debounce", value, "a Debounce", 'write Debounce(key="order-7", period=5)')
    _require_key("debounce.key", value.key)
    period = seconds(value.period, field="debounce.period")
    if period <= 0:
        raise ConfigurationError("debounce.period", value.period, "more than zero", "leave debounce out to start now")
    if value.max_wait is not None and seconds(value.max_wait, field="debounce.max_wait") < period:
        expected = f"at least the period of {period:g} s"
        raise ConfigurationError("debounce.max_wait", value.max_wait, expected, "leave it out for no limit")


_CHECKS: Final[dict[str, Callable[[Any], None]]] = {
    "workflow_id": _check_workflow_id,
    "deadline": _check_deadline,
    "timeout": _check_timeout,
    "on_existing": _check_on_existing,
    "attributes": _check_attributes,
    "version": _check_version,
    "detached": _check_detached,
    "queue": _check_queue,
    "priority": _check_priority,
    "deduplication_id": _check_deduplication_id,
    "on_duplicate": _check_on_duplicate,
    "partition_key": _check_partition_key,
    "delay": _check_delay,
    "debounce": _check_debounce,
}


class Placement(NamedTuple):
    """Where a start waits, and how long; durations in microseconds. Without a queue it waits for nothing.

    ``is_debounced``: ``deduplication_id`` is the key of a debounce, and ``longest_delay`` its ``max_wait``.
    """

    queue: str | None = None
    priority: int = 0
    partition_key: str | None = None
    deduplication_id: str | None = None
    delay: int | None = None
    is_debounced: bool = False
    longest_delay: int | None = None


NOWHERE: Final = Placement()


def queue_name(queue: Queue | str, registry: Registry) -> str:
    """The name of a queue that an option or a decorator gives.

    Raises:
        ConfigurationError: it is no queue, or one of another application.
    """
    _check_queue(queue)
    if isinstance(queue, str):
        return queue
    if not queue.belongs_to(registry):
        raise ConfigurationError(
            "queue", queue, f"a queue of application {registry.application!r}", "declare it there, or pass its name"
        )
    return queue.name


def placement_of(workflow: RegisteredWorkflow, options: Mapping[str, Any], registry: Registry) -> Placement:
    """Where a start with these options waits.

    Raises:
        ConfigurationError: options that contradict each other, or a queue of another application.
    """
    if workflow.queue is None and not options:
        return NOWHERE
    if options.get("on_existing") == "raise" and "workflow_id" not in options:
        raise ConfigurationError("on_existing", "raise", "a workflow_id with it", "a new ID never exists already")
    given = options.get("queue", workflow.queue)
    if given is None:
        _refuse(_OF_A_QUEUE, options, "a queue with it", 'add queue="name", or leave it out')
    if "on_duplicate" in options and "deduplication_id" not in options:
        _refuse(("on_duplicate",), options, "a deduplication_id with it", "leave it out")
    debounce: Debounce | None = options.get("debounce")
    if debounce is not None:
        _refuse(_NOT_DEBOUNCED, options, "no debounce with it", "leave one of them out")
    delay = _microseconds(options.get("delay")) if debounce is None else _microseconds(debounce.period)
    if given is None and not delay:
        return NOWHERE
    partition = options.get("partition_key")
    return Placement(
        INTERNAL_QUEUE if given is None else queue_name(given, registry),
        options.get("priority", 0),
        partition,
        options.get("deduplication_id") if debounce is None else _debounce_key(workflow, partition, debounce),
        delay or None,
        debounce is not None,
        None if debounce is None else _microseconds(debounce.max_wait),
    )


def refuse_waiting(workflow: RegisteredWorkflow, options: Mapping[str, Any]) -> None:
    """Refuse a direct call of a workflow that is to wait: it runs here and now.

    Raises:
        ConfigurationError: it names the option.
    """
    expected = "no such option for a direct call, which runs here and now"
    if workflow.queue is not None:
        options = {"queue": workflow.queue, **options}
    _refuse(("queue", "delay", "debounce", *_OF_A_QUEUE), options, expected, "start it, with start() or start_in()")


_OF_A_QUEUE: Final = ("priority", "deduplication_id", "on_duplicate", "partition_key")
_NOT_DEBOUNCED: Final = ("deduplication_id", "workflow_id", "delay")


def _refuse(names: tuple[str, ...], options: Mapping[str, Any], expected: str, advice: str) -> None:
    for name in names:
        if name in options:
            raise ConfigurationError(name, options[name], expected, advice)


def _debounce_key(workflow: RegisteredWorkflow, partition: str | None, debounce: Debounce) -> str:
    # As JSON, so that no two of them can be the same text.
    parts = (workflow.name, workflow.class_name, workflow.config_name, partition, debounce.key)
    return DEBOUNCE_PREFIX + json.dumps(parts, ensure_ascii=False)


def _microseconds(duration: Duration | None) -> int | None:
    return None if duration is None else round(seconds(duration) * _MICROSECONDS)
