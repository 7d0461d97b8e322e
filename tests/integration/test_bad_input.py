"""Wrong input: each has an error of its own that says what happened, to which one, what was expected, what to do."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dbos_orm import DBOS, AsyncDBOS, errors
from dbos_orm.errors import ConfigurationError, DBOSError
from tests.databases import TestDatabase
from tests.integration.mistakes import (
    CLASS_METHOD,
    TABLE,
    Case,
    async_generator,
    generator,
    plain,
    with_session,
)
from tests.integration.shop import launched

HERE = Path(__file__).parent


@pytest.fixture
def app(sqlite_database: TestDatabase) -> Iterator[Any]:
    """A launched application ``dbos``, one that is only bound and one that is not, each with a workflow."""
    engine = sqlite_database.make_engine()
    bound, unbound = DBOS(name="bound").bind(sqlite_database.make_engine()), DBOS(name="unbound")
    with launched(sqlite_database, engine=engine) as dbos:

        @dbos.workflow(name="work")
        def work(value: object) -> None: ...

        @dbos.workflow(name="run")
        def run() -> None:
            calls.pop()()

        calls: list[Callable[[], object]] = []

        def in_workflow(call: Callable[[], object]) -> None:
            calls.append(call)
            run()

        yield SimpleNamespace(
            dbos=dbos,
            engine=engine,
            work=work,
            step=dbos.step(name="step")(plain),
            handle=dbos.handle("missing"),
            in_workflow=in_workflow,
            bound=bound.workflow(plain),
            unbound=unbound.workflow(plain),
            unbound_transaction=unbound.transaction(with_session),
        )


def mistakes() -> Iterator[Any]:
    for group, cases in TABLE.items():
        for number, case in enumerate(cases):
            name = str(case.facts.get("field") or case.facts.get("name") or case.kind.__name__)
            yield pytest.param(case, id=f"{group}-{number}-{name}")


@pytest.mark.parametrize("case", list(mistakes()))
def test_a_mistake_is_reported_in_style(app: Any, case: Case) -> None:
    with pytest.raises(DBOSError) as caught:
        case.make(app)
    error = caught.value
    assert type(error) is case.kind, error
    assert {name: getattr(error, name) for name in case.facts} == case.facts
    assert case.said in str(error)
    assert_in_style(error)


def assert_in_style(error: DBOSError) -> None:
    """It names what it is about, says what to do behind a semicolon, is one line, and pickles with its facts."""
    message = str(error)
    assert "\n" not in message
    assert re.search(r"; \w+", message), f"does not say what to do: {message}"
    assert not message.endswith((".", ";", " "))
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied)) == (type(error), message)
    assert vars(copied).keys() == vars(error).keys()


def test_a_wrong_call_is_told_as_python_tells_it(app: Any) -> None:
    with pytest.raises(TypeError, match="too many positional arguments"):
        app.work(1, 2)
    with pytest.raises(TypeError, match="missing a required argument"):
        app.work.start()


def test_a_nul_in_a_text_is_no_mistake(app: Any) -> None:
    app.work("a\x00b")


def test_async_applications_take_async_functions(app: Any) -> None:
    dbos = AsyncDBOS(name="shop")
    cases: list[tuple[Any, Any, str]] = [
        (dbos.workflow, plain, "an async def"),
        (dbos.transaction, with_session, "an async def"),
        (dbos.workflow, async_generator, "an async def"),
        (dbos.workflow, CLASS_METHOD, "not a class method"),
        (dbos.step, generator, "a function that returns its result"),
    ]
    for decorate, function, expected in cases:
        with pytest.raises(ConfigurationError, match=expected) as caught:
            decorate(function)
        assert_in_style(caught.value)


def test_an_instant_in_the_past_is_no_mistake(app: Any) -> None:
    app.work.options(deadline=datetime.now(UTC) - timedelta(days=1))


TESTED_ELSEWHERE = {
    "ScheduleExistsError": "test_schedules_at_run_time.py",
    "SchemaVersionError": "test_bad_databases.py",
    "TransactionOutputMissingError": "test_second_database_mistakes.py",
    "DatabaseUnavailableError": "test_bad_databases.py",
    "ForkedProcessError": "test_context.py",
    "StepOutsideScopeError": "test_context.py",
    "StartInStepError": "test_context.py",
    "ConflictingWorkflowError": "test_workflows.py",
    "WorkflowExistsError": "test_workflows.py",
    "WorkflowNotFoundError": "test_handles.py",
    "NonDeterministicError": "test_replays.py",
    "MaxStepRetriesExceededError": "test_steps.py",
    "SessionMisuseError": "test_transactions.py",
    "StepTimeoutError": "test_step_limits.py",
    "NotCommittedError": "test_outbox.py",
    "InstanceNotRegisteredError": "test_methods.py",
    "ArgumentError": "test_calls.py",
    "DeduplicationError": "test_deduplication.py",
    "NotDelayedError": "test_debounce.py",
    "NotInStepError": "test_queue_control.py",
    "QueueNotEmptyError": "test_queue_control.py",
    "RemoteError": "test_recorded_values.py",
    "WorkflowCancelledError": "test_limits.py",
    "WorkflowTimeoutError": "test_limits.py",
}
"""Errors that need a running workflow or a bad database, and where they are provoked."""

OF_LATER_ISSUES = {
    "MaxRecoveryAttemptsExceededError",  # tests of recovery
    "NotAuthorizedError",
}


def test_every_error_is_provoked_by_a_test() -> None:
    all_of_them = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, DBOSError) and kind is not DBOSError
    }
    here = {case.kind.__name__ for cases in TABLE.values() for case in cases}
    assert all_of_them - here - set(TESTED_ELSEWHERE) - OF_LATER_ISSUES == set()
    missing = [name for name, file in TESTED_ELSEWHERE.items() if name not in (HERE / file).read_text()]
    assert missing == []
