"""The exception tree: every error says its facts, and travels between processes with them."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dbos_orm import errors
from dbos_orm.errors import ConfigurationError, DBOSError, MaxStepRetriesExceededError, RemoteError

FACTS: dict[str, dict[str, Any]] = {
    "ConfigurationError": {
        "field": "lease",
        "value": -1,
        "expected": "a positive duration",
        "advice": "say 30",
    },
    "NotBoundError": {"operation": "start", "application": "shop"},
    "NotLaunchedError": {"operation": "recv", "application": "shop"},
    "SchemaVersionError": {"found": "0000", "expected": "0001", "command": "dbos-orm migrate"},
    "TransactionOutputMissingError": {"url": "postgresql://db/reports", "table": "dbos_transaction_output"},
    "DatabaseUnavailableError": {
        "url": "postgresql://db/shop",
        "seconds": 30.0,
        "cause": OSError(111, "refused"),
    },
    "ForkedProcessError": {"operation": "start", "launched_pid": 1, "pid": 2},
    "ConflictingRegistrationError": {"name": "checkout", "existing": "shop:checkout", "new": "till:checkout"},
    "ArgumentError": {
        "name": "checkout",
        "argument": "order_id",
        "problem": "Input should be a valid integer",
        "given": "'x'",
    },
    "InstanceNotRegisteredError": {"name": "Shop.order", "class_name": "Shop", "registered": ["eu"]},
    "NotRegisteredError": {"name": "checkout", "registered": ["a", "b"]},
    "ConflictingWorkflowError": {"workflow_id": "order-1", "field": "name", "recorded": "a", "given": "b"},
    "WorkflowExistsError": {"workflow_id": "order-1"},
    "WorkflowNotFoundError": {"workflow_id": "order-1"},
    "QueueNotFoundError": {"queue": "mail", "known": ["orders"]},
    "QueueNotEmptyError": {"queue": "mail", "live": 3},
    "DeduplicationError": {"queue": "mail", "deduplication_id": "user-1", "workflow_id": "order-1"},
    "NotDelayedError": {"workflow_id": "order-1", "status": "ENQUEUED"},
    "ScheduleNotFoundError": {"schedule": "report", "known": ["nightly"]},
    "ScheduleExistsError": {"schedule": "report"},
    "NotAuthorizedError": {"name": "checkout", "required": ["admin"], "roles": []},
    "NotInWorkflowError": {"operation": "recv"},
    "NotInStepError": {"operation": "dbos.queues.pause()", "workflow_id": "order-1"},
    "StepOutsideScopeError": {"operation": "charge", "workflow_id": "order-1"},
    "StartInStepError": {"name": "checkout", "step": "charge"},
    "SessionMisuseError": {"operation": "a commit inside a transaction", "advice": "leave it to the library"},
    "NotCommittedError": {"operation": "result()", "workflow_id": "order-1"},
    "NonDeterministicError": {
        "workflow_id": "order-1",
        "step": "3.2",
        "recorded": "charge",
        "called": "refund",
        "arguments_differ": False,
    },
    "SerializationError": {"path": "result.items[3].price", "type_name": "Money", "advice": "register it"},
    "RemoteError": {"type_name": "shop:Oops", "message": "no", "traceback_text": "Traceback", "notes": ["n"]},
    "StepTimeoutError": {"step": "charge", "timeout": timedelta(seconds=2)},
    "MaxStepRetriesExceededError": {"step": "charge", "attempts": 2, "errors": []},
    "MaxRecoveryAttemptsExceededError": {
        "workflow_id": "order-1",
        "attempts": 101,
        "reason": "out of memory",
    },
    "WorkflowCancelledError": {"workflow_id": "order-1"},
    "WorkflowTimeoutError": {"workflow_id": "order-1", "deadline": datetime(2026, 11, 22, tzinfo=UTC)},
    "WorkflowCancelled": {"workflow_id": "order-1"},
    "WorkflowSuspended": {"workflow_id": "order-1"},
    "OwnershipLost": {"workflow_id": "order-1"},
}


PUBLIC_ERRORS = [
    kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, BaseException) and not name.startswith("_")
    if kind is not DBOSError
]

every_error = pytest.mark.parametrize("kind", PUBLIC_ERRORS, ids=lambda kind: kind.__name__)


class OddConstructorError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def test_every_error_is_in_the_tree_at_the_head_of_the_module() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)

    assert sorted(drawn) == sorted(["DBOSError", *(kind.__name__ for kind in PUBLIC_ERRORS)])


@every_error
def test_an_error_pickles_and_copies_with_facts_given_by_name(kind: type[BaseException]) -> None:
    error = kind(**FACTS[kind.__name__])
    error.add_note("seen in process 1")

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert twin.args == error.args
        assert str(twin) == str(error)
        assert repr(vars(twin)) == repr(vars(error))


@every_error
def test_an_error_keeps_its_facts_as_attributes_and_says_them(kind: type[BaseException]) -> None:
    facts = FACTS[kind.__name__]
    error = kind(**facts)

    assert list(inspect.signature(kind).parameters) == list(facts)
    for name, fact in facts.items():
        assert getattr(error, name) == fact
    first = next(iter(facts.values()))
    assert str(first) in str(error)


@every_error
def test_only_what_unwinds_a_run_passes_an_except_exception(kind: type[BaseException]) -> None:
    unwinds = not kind.__name__.endswith("Error")

    assert issubclass(kind, DBOSError) is not unwinds
    assert issubclass(kind, Exception) is not unwinds


@every_error
def test_an_error_is_stored_under_the_module_that_people_import_it_from(kind: type[BaseException]) -> None:
    assert kind.__module__ == "dbos_orm.errors"


def test_an_exception_that_cannot_be_unpickled_travels_as_a_remote_error() -> None:
    error = MaxStepRetriesExceededError("charge", 2, [OddConstructorError("a", "b"), ValueError("c")])

    twin = pickle.loads(pickle.dumps(error))

    assert isinstance(twin.errors[0], RemoteError)
    assert twin.errors[0].type_name == f"{__name__}:OddConstructorError"
    assert twin.errors[0].message == "a and b"
    assert isinstance(twin.errors[1], ValueError)


def test_a_fact_that_cannot_be_pickled_travels_as_its_repr() -> None:
    error = ConfigurationError("engine", engine := (lambda: None), "an Engine")

    twin = pickle.loads(pickle.dumps(error))

    assert twin.value == repr(engine)


def test_the_notes_of_a_remote_error_print_once() -> None:
    error = RemoteError("shop:Oops", "no", "Traceback", ["first", "second"])

    assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__ == ["first", "second"]
