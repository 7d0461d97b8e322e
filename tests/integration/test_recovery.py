"""What becomes of workflows whose process is gone: who continues them, how often, and when nobody does."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from dbos_orm import DBOS, Config, WorkflowState, WorkflowStatus
from dbos_orm.errors import MaxRecoveryAttemptsExceededError
from dbos_orm.models import Executor, StepOutput
from tests.databases import TestDatabase
from tests.dropping import Dropped, Fate, Fates, current_fate, process
from tests.integration.shop import count_of
from tests.processes import PATIENCE, Processes, eventually

LONG = Config(lease=600, heartbeat=300, tick=0.05, retry_unreadable=0.2)
"""Leases that do not end during a test: who is dead was declared dead, or is proved to be."""
ID = "w"


class Shop:
    """An application with one workflow of three steps, whose processes die in the step that ``fatal`` says."""

    def __init__(self, database: TestDatabase, *, name: str = "shop", **options: Any) -> None:
        self.database = database
        self.name = name
        self.options = options
        self.config = LONG
        self.fatal: int | None = None
        self.ran: list[int] = []

    def application(self) -> tuple[DBOS, Any]:
        """A new application with the same functions, as another process has it."""
        dbos = DBOS(name=self.name, config=self.config)

        @dbos.step(name="step")
        def step(number: int) -> int:
            self.ran.append(number)
            fate = current_fate.get()
            if number == self.fatal and fate is not None:
                fate.die()
            return number

        @dbos.workflow(name="work", **self.options)
        def work(note: str) -> str:
            return note + str([step(number) for number in range(3)])

        return dbos, work

    def die_in(self, fatal: int) -> int:
        """A process that starts the workflow or takes it over, and dies in a step; gives the counted take-overs."""
        self.fatal = fatal
        dbos, work = self.application()
        fates = Fates()
        fate = fates.add(ID, Fate())
        with process(dbos, self.database.make_engine(), fates):
            if not count_of(self.database, WorkflowStatus, workflow_id=ID):
                self._call(work, fate)
            eventually(lambda: fate.is_over)
            fate.wait_until_quiet()
            counted: int = dbos.handle(ID).describe().recovery_attempts
        return counted

    @contextmanager
    def living(self) -> Iterator[tuple[DBOS, Any]]:
        """A process that lives until it is shut down."""
        self.fatal = None
        dbos, work = self.application()
        with dbos.launch(self.database.make_engine()):
            yield dbos, work

    def _call(self, work: Any, fate: Fate) -> None:
        token = current_fate.set(fate)
        try:
            with pytest.raises(Dropped):
                work.options(workflow_id=ID)("sum ")
        finally:
            current_fate.reset(token)


def wait_for_a_tick(shop: Shop) -> None:
    """Return when a living process of the application has looked for work, and taken what it could."""
    dbos, work = shop.application()
    dbos.bind(shop.database.make_engine())
    assert work.start("tick ").result(PATIENCE) == "tick [0, 1, 2]"
    dbos._unbind()


def change(database: TestDatabase, model: type[Any], **values: object) -> None:
    with Session(database.make_engine()) as session, session.begin():
        session.execute(update(model).values(**values))


# -- take-overs and their count ------------------------------------------------------------------


def test_a_dead_process_is_continued_behind_its_last_recorded_step(database: TestDatabase) -> None:
    shop = Shop(database)
    shop.die_in(1)
    with shop.living() as (dbos, _):
        assert dbos.handle(ID).result(PATIENCE) == "sum [0, 1, 2]"
    assert shop.ran == [0, 1, 1, 2]


def test_take_overs_without_a_new_step_add_up_and_a_new_step_begins_again(database: TestDatabase) -> None:
    shop = Shop(database)
    assert shop.die_in(0) == 0
    assert [shop.die_in(0), shop.die_in(0)] == [1, 2]
    # The first one finds no new step either; the second one finds what the first one recorded.
    assert [shop.die_in(1), shop.die_in(1), shop.die_in(1)] == [3, 1, 2]
    with shop.living() as (dbos, _):
        assert dbos.handle(ID).result(PATIENCE) == "sum [0, 1, 2]"
        assert dbos.handle(ID).describe().recovery_attempts == 3


def test_a_workflow_that_kills_its_processes_is_given_up_with_the_reason(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(database, max_recovery_attempts=2)
    shop.die_in(1)
    assert [shop.die_in(1), shop.die_in(1)] == [1, 2]
    with shop.living() as (dbos, _):
        handle = dbos.handle(ID)
        with pytest.raises(MaxRecoveryAttemptsExceededError) as raised:
            handle.result(PATIENCE)
        assert handle.status() is WorkflowState.MAX_RECOVERY_ATTEMPTS_EXCEEDED
    assert shop.ran == [0, 1, 1, 1]
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
        assert (error.workflow_id, error.attempts) == (ID, 2)
        assert "2 processes in a row" in error.reason
    assert any(ID in record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)


def test_the_limit_of_the_settings_counts_where_the_workflow_has_none(database: TestDatabase) -> None:
    shop = Shop(database)
    shop.config = Config(lease=600, heartbeat=300, tick=0.05, max_recovery_attempts=1)
    shop.die_in(0)
    shop.die_in(0)
    with shop.living() as (dbos, _), pytest.raises(MaxRecoveryAttemptsExceededError):
        dbos.handle(ID).result(PATIENCE)


def test_a_workflow_that_makes_progress_is_never_given_up(database: TestDatabase) -> None:
    shop = Shop(database, max_recovery_attempts=1)
    for fatal in (0, 1, 2):
        shop.die_in(fatal)
    with shop.living() as (dbos, _):
        assert dbos.handle(ID).result(PATIENCE) == "sum [0, 1, 2]"


def test_what_was_given_up_stays_given_up(database: TestDatabase) -> None:
    shop = Shop(database, max_recovery_attempts=1)
    shop.die_in(0)
    shop.die_in(0)
    for _ in range(2):
        with shop.living() as (_, work), pytest.raises(MaxRecoveryAttemptsExceededError):
            work.options(workflow_id=ID)("sum ")
    assert shop.ran == [0, 0]


# -- hand-over -----------------------------------------------------------------------------------


def test_what_a_shutdown_hands_over_is_continued_at_once_by_another_process_and_not_counted(
    database: TestDatabase,
) -> None:
    may_go_on, is_running = threading.Event(), threading.Event()
    ran: list[str] = []

    def application(place: str) -> tuple[DBOS, Any]:
        dbos = DBOS(name="shop", config=LONG)

        @dbos.step(name="step")
        def step() -> str:
            ran.append(place)
            is_running.set()
            assert may_go_on.wait(PATIENCE)
            return place

        @dbos.workflow(name="work")
        def work() -> str:
            return step()

        return dbos, work

    (old, work), (new, _) = application("old"), application("new")
    old.launch(database.make_engine())
    work.options(workflow_id=ID).start()
    assert is_running.wait(PATIENCE)
    with new.launch(database.make_engine()):
        old.shutdown(0)
        eventually(lambda: ran == ["old", "new"], what="the other process runs the step")
        may_go_on.set()
        assert new.handle(ID).result(PATIENCE) == "new"
        assert new.handle(ID).describe().recovery_attempts == 0
        assert [step.output for step in new.handle(ID).steps()] == ["new"]


def test_a_shutdown_leaves_no_executor_behind(database: TestDatabase) -> None:
    shop = Shop(database)
    with shop.living():
        assert count_of(database, Executor) == 1
    assert count_of(database, Executor) == 0


def test_a_dead_executor_is_forgotten_when_its_workflows_are_continued(database: TestDatabase) -> None:
    shop = Shop(database)
    shop.die_in(1)
    with shop.living() as (dbos, _):
        assert dbos.handle(ID).result(PATIENCE)
        eventually(lambda: count_of(database, Executor) == 1)


# -- who may continue it -------------------------------------------------------------------------


def test_a_process_leaves_workflows_of_another_version_to_those_that_have_it(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = Shop(database, version="1"), Shop(database, version="2")
    old.die_in(1)
    with caplog.at_level(logging.WARNING, "dbos_orm"), new.living() as (dbos, _):
        assert any(message.startswith("1 stored workflows wait for what") for message in caplog.messages)
        wait_for_a_tick(new)
        assert dbos.handle(ID).status() is WorkflowState.PENDING
        with old.living():
            assert dbos.handle(ID).result(PATIENCE) == "sum [0, 1, 2]"
    assert old.ran == [0, 1, 1, 2]


def test_a_workflow_that_waits_goes_to_a_process_of_its_version(database: TestDatabase) -> None:
    shop = Shop(database, version="2")
    dbos, work = shop.application()
    dbos.bind(database.make_engine())
    pinned = work.options(version="1").start("pinned ")
    free = work.start("free ")
    with shop.living() as (living, _):
        assert living.handle(free.workflow_id).result(PATIENCE) == "free [0, 1, 2]"
        assert living.handle(pinned.workflow_id).status() is WorkflowState.ENQUEUED
    with Shop(database, version="1").living() as (living, _):
        assert living.handle(pinned.workflow_id).result(PATIENCE) == "pinned [0, 1, 2]"
    dbos._unbind()


def test_two_applications_on_one_database_leave_one_another_alone(database: TestDatabase) -> None:
    shop, bank = Shop(database, name="shop"), Shop(database, name="bank")
    shop.die_in(1)
    bound, work = shop.application()
    bound.bind(database.make_engine())
    waiting = work.start("waiting ")
    with bank.living():
        wait_for_a_tick(bank)
        assert bound.handle(ID).status() is WorkflowState.PENDING
        assert waiting.status() is WorkflowState.ENQUEUED
        assert bank.ran == [0, 1, 2]
    with shop.living():
        assert bound.handle(ID).result(PATIENCE) == "sum [0, 1, 2]"
        assert waiting.result(PATIENCE) == "waiting [0, 1, 2]"
    bound._unbind()


# -- rows that cannot be read --------------------------------------------------------------------


@pytest.mark.parametrize("model", [WorkflowStatus, StepOutput], ids=["input", "step"])
def test_a_row_that_cannot_be_read_is_held_and_shown_and_continued_when_it_can(
    database: TestDatabase, model: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(database)
    shop.die_in(1)
    change(database, model, serializer="lost")
    dbos, _ = shop.application()
    with process(dbos, database.make_engine(), Fates()):
        eventually(lambda: any(ID in message and "lost" in message for message in caplog.messages))
        eventually(lambda: count_of(database, WorkflowStatus, workflow_id=ID, status="DELAYED", owner_token=None) == 1)
    assert shop.ran == [0, 1]
    assert count_of(database, StepOutput, workflow_id=ID) == 1
    change(database, model, serializer="json")
    with shop.living() as (dbos, _):
        assert dbos.handle(ID).result(PATIENCE) == "sum [0, 1, 2]"


@pytest.mark.parametrize("model", [WorkflowStatus, StepOutput], ids=["input", "step"])
def test_processes_that_cannot_read_a_workflow_do_not_count_against_it(
    database: TestDatabase, model: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(database, max_recovery_attempts=2)
    shop.die_in(1)
    change(database, model, serializer="lost")
    for _ in range(3):
        caplog.clear()
        dbos, _ = shop.application()
        with process(dbos, database.make_engine(), Fates()):
            eventually(lambda: any(ID in message for message in caplog.messages))
            eventually(lambda: count_of(database, WorkflowStatus, workflow_id=ID, recovery_attempts=0) == 1)
    change(database, model, serializer="json")
    with shop.living() as (dbos, _):
        assert dbos.handle(ID).result(PATIENCE) == "sum [0, 1, 2]"


# -- real processes ------------------------------------------------------------------------------


WORKER = """
    import os, sys
    from dbos_orm import DBOS, Config
    from tests.engines import engine_for

    dbos = DBOS(engine_for(sys.argv[1]), name="shop", config=Config(lease=600, heartbeat=300, tick=0.05))

    @dbos.step(name="step")
    def step(number):
        print("step", number, flush=True)
        if number == 1 and sys.argv[2] == "hang":
            sys.stdin.readline()
        return number

    @dbos.workflow(name="work", version="1")
    def work(note):
        return note + str([step(number) for number in range(3)])

    if __name__ == "__main__":
        with dbos.launch():
            work.options(workflow_id="w").start("sum ")
            print("started", flush=True)
            print(dbos.handle("w").result(30), flush=True)
"""


def test_a_process_killed_on_this_host_is_continued_at_once_however_long_its_lease_is(
    database: TestDatabase, processes: Processes
) -> None:
    url = database.url.render_as_string(hide_password=False)
    child = processes.start_script(WORKER, url, "hang")
    child.wait_for_line("step 1")
    shop = Shop(database, version="1")
    with shop.living() as (dbos, _):
        child.kill()
        assert dbos.handle(ID).result(PATIENCE) == "sum [0, 1, 2]"
    assert shop.ran == [1, 2]
