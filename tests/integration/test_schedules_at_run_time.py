"""``dbos.schedules``: schedules made, changed, paused, triggered and back-filled at run time."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from apscheduler.triggers.cron import CronTrigger
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, ScheduleDefinition
from dbos_orm.errors import (
    ConfigurationError,
    NotBoundError,
    NotRegisteredError,
    QueueNotFoundError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    SerializationError,
    SessionMisuseError,
)
from tests.databases import TestDatabase
from tests.integration.schedules import DAILY, RARELY, STILL, change_row, days_ago, look_once, row_of, runs_of, slot_id
from tests.integration.shop import Interruption, launched, launched_async
from tests.processes import PATIENCE, eventually

Colour = Literal["sync", "async"]


class Shop:
    """An application of either colour, with a workflow that says what it was given."""

    def __init__(self, dbos: DBOS | AsyncDBOS) -> None:
        self.dbos: Any = dbos

        def report(scheduled_at: datetime, actual_at: datetime, context: Any = None) -> list[Any]:
            return [scheduled_at, context]

        async def report_async(scheduled_at: datetime, actual_at: datetime, context: Any = None) -> list[Any]:
            return [scheduled_at, context]

        function: Any = report_async if isinstance(dbos, AsyncDBOS) else report
        self.report = self.dbos.workflow(name="report")(function)

    async def do(self, name: str, *arguments: Any, **options: Any) -> Any:
        return await of(getattr(self.dbos.schedules, name)(*arguments, **options))


async def of(answer: Any) -> Any:
    """An answer, or what is to be awaited for it."""
    return await answer if inspect.isawaitable(answer) else answer


@pytest.fixture(params=["sync", "async"])
async def shop(request: pytest.FixtureRequest, database: TestDatabase) -> AsyncIterator[Shop]:
    if request.param == "async":
        async with launched_async(database) as async_dbos:
            yield Shop(async_dbos)
    else:
        # A plain application blocks the loop of the test, where nothing else happens.
        with launched(database) as dbos:
            object.__setattr__(dbos.config, "may_block_loop", True)
            yield Shop(dbos)


async def test_a_schedule_made_at_run_time_is_run_with_its_context(shop: Shop, database: TestDatabase) -> None:
    made = await shop.do("create", "often", shop.report, "* * * * * *", context={"tenant": 7}, timezone="Asia/Tokyo")

    assert (made.name, made.workflow_name, made.timezone, made.context) == (
        "often",
        "report",
        "Asia/Tokyo",
        {"tenant": 7},
    )
    assert (made.declared, made.paused, made.catch_up, made.last_fire_at) == (False, False, "last", None)
    first = eventually_run(database, "often")
    slot, context = await of(shop.dbos.handle(first).result(timeout=PATIENCE))
    assert (slot_id("often", slot), context) == (first, {"tenant": 7})


def eventually_run(database: TestDatabase, name: str) -> str:
    return eventually(lambda: runs_of(database, name))[0]


async def test_schedules_are_listed_got_and_deleted(shop: Shop) -> None:
    await shop.do("create", "b", shop.report, RARELY)
    await shop.do("create", "a", "report", RARELY)

    assert [schedule.name for schedule in await shop.do("list")] == ["a", "b"]
    assert (await shop.do("get", "a")).expression == RARELY
    await shop.do("delete", "a")
    assert [schedule.name for schedule in await shop.do("list")] == ["b"]


@pytest.mark.parametrize("name", ["get", "pause", "resume", "trigger", "delete", "set"])
async def test_a_schedule_that_does_not_exist_is_said_to_be_missing(shop: Shop, name: str) -> None:
    await shop.do("create", "report", shop.report, RARELY)
    with pytest.raises(ScheduleNotFoundError) as missing:
        await shop.do(name, "rapport")

    assert (missing.value.schedule, missing.value.known) == ("rapport", ["report"])


async def test_what_is_paused_is_not_run_and_not_caught_up(shop: Shop, database: TestDatabase) -> None:
    await shop.do("create", "daily", shop.report, DAILY, catch_up="all")
    assert (await shop.do("pause", "daily")).paused
    change_row(database, "daily", next_fire_at=days_ago(3))
    look_once(shop.dbos)
    assert runs_of(database, "daily") == []

    resumed = await shop.do("resume", "daily")
    assert not resumed.paused
    assert resumed.next_fire_at == days_ago(-1)
    look_once(shop.dbos)
    assert runs_of(database, "daily") == []


async def test_pausing_and_resuming_twice_changes_nothing(shop: Shop, database: TestDatabase) -> None:
    await shop.do("create", "daily", shop.report, DAILY)
    await shop.do("pause", "daily")
    paused = await shop.do("pause", "daily")
    assert await shop.do("get", "daily") == paused
    await shop.do("resume", "daily")
    change_row(database, "daily", next_fire_at=days_ago(-5))
    assert (await shop.do("resume", "daily")).next_fire_at == days_ago(-5)


async def test_a_trigger_is_a_run_of_its_own(shop: Shop, database: TestDatabase) -> None:
    await shop.do("create", "rare", shop.report, RARELY, context="by hand")
    await shop.do("pause", "rare")
    before = datetime.now(UTC)

    first, second = await shop.do("trigger", "rare"), await shop.do("trigger", "rare")

    assert first.created
    assert first.workflow_id.startswith("sched-shop-rare-manual-")
    assert first.workflow_id != second.workflow_id
    scheduled_at, context = await of(first.result(timeout=PATIENCE))
    assert before - timedelta(seconds=1) < scheduled_at < datetime.now(UTC) + timedelta(seconds=1)
    assert context == "by hand"
    assert sorted([first.workflow_id, second.workflow_id]) == runs_of(database, "rare")


async def test_backfilled_slots_and_regular_ones_are_the_same_runs(shop: Shop, database: TestDatabase) -> None:
    await shop.do("create", "daily", shop.report, DAILY)
    change_row(database, "daily", next_fire_at=days_ago(2))
    look_once(shop.dbos)  # The newest missed one.

    handles = await shop.do("backfill", "daily", days_ago(4), days_ago(-10))

    slots = [days_ago(number) for number in (4, 3, 2, 1, 0)]
    assert [handle.workflow_id for handle in handles] == [slot_id("daily", slot) for slot in slots]
    assert [handle.created for handle in handles] == [True, True, True, True, False]
    assert [(await of(handle.result(timeout=PATIENCE)))[0] for handle in handles] == slots
    again = await shop.do("backfill", "daily", days_ago(4), days_ago(2))
    assert [handle.created for handle in again] == [False, False]
    assert len(runs_of(database, "daily")) == 5


async def test_a_long_backfill_is_written_in_batches(shop: Shop, database: TestDatabase) -> None:
    await shop.do("create", "minutely", shop.report, "* * * * *", queue=None)
    await shop.do("pause", "minutely")

    handles = await shop.do("backfill", "minutely", days_ago(1), days_ago(1) + timedelta(hours=10))

    assert len({handle.workflow_id for handle in handles}) == 600
    assert len(runs_of(database, "minutely")) == 600


async def test_a_change_leaves_the_rest_and_a_new_time_begins_now(shop: Shop, database: TestDatabase) -> None:
    made = await shop.do("create", "r", shop.report, "0 9 * * *", context=1, catch_up="all")
    other = await shop.do("set", "r", context=[2])
    assert (other.context, other.expression, other.catch_up, other.next_fire_at) == (
        [2],
        "0 9 * * *",
        "all",
        made.next_fire_at,
    )

    retimed = await shop.do("set", "r", expression=RARELY, timezone="Europe/Berlin", catch_up="none")
    assert (retimed.expression, retimed.timezone, retimed.catch_up, retimed.context) == (
        RARELY,
        "Europe/Berlin",
        "none",
        [2],
    )
    assert retimed.next_fire_at == datetime(datetime.now(UTC).year, 12, 31, 23, tzinfo=UTC)
    assert (await shop.do("set", "r", context=None)).context is None
    assert await shop.do("set", "r") == await shop.do("get", "r")


async def test_several_are_made_together_or_not_at_all(shop: Shop) -> None:
    one, two = (ScheduleDefinition(name, shop.report, RARELY) for name in ("one", "two"))
    await shop.do("create", "two", shop.report, RARELY)
    with pytest.raises(ScheduleExistsError) as taken:
        await shop.do("create_many", [one, two])
    assert taken.value.schedule == "two"
    assert [schedule.name for schedule in await shop.do("list")] == ["two"]

    await shop.do("delete", "two")
    assert [schedule.name for schedule in await shop.do("create_many", [two, one])] == ["one", "two"]


async def test_applied_schedules_are_made_or_changed_and_others_stay(shop: Shop, database: TestDatabase) -> None:
    for name in ("kept", "changed"):
        await shop.do("create", name, shop.report, "0 9 * * *")
    await shop.do("pause", "changed")
    applied = await shop.do(
        "apply",
        [ScheduleDefinition("changed", "report", RARELY, context=1), ScheduleDefinition("new", "report", RARELY)],
    )

    assert [(one.name, one.expression, one.paused) for one in applied] == [
        ("changed", RARELY, True),
        ("new", RARELY, False),
    ]
    assert [one.name for one in await shop.do("list")] == ["changed", "kept", "new"]
    before = row_of(database, "new").updated_at
    await shop.do("apply", [ScheduleDefinition("new", "report", RARELY)])
    assert row_of(database, "new").updated_at == before
    with pytest.raises(ConfigurationError):
        await shop.do(
            "apply", [ScheduleDefinition("newer", "report", RARELY), ScheduleDefinition("bad", "report", "* *")]
        )
    with pytest.raises(QueueNotFoundError):
        await shop.do(
            "apply", [ScheduleDefinition("a", "report", RARELY), ScheduleDefinition("b", "report", RARELY, queue="no")]
        )
    assert [one.name for one in await shop.do("list")] == ["changed", "kept", "new"]


async def test_what_cannot_work_is_refused_at_the_call(shop: Shop) -> None:
    dbos = shop.dbos

    async def refused(
        kind: type[Exception],
        said: str,
        name: Any = "x",
        workflow: Any = "report",
        expression: Any = RARELY,
        **options: Any,
    ) -> None:
        with pytest.raises(kind, match=said):
            await shop.do("create", name, workflow, expression, **options)

    await refused(NotRegisteredError, "'nobody' is not registered", workflow="nobody")
    await refused(NotRegisteredError, "registered", workflow=Shop(type(dbos)(name="other")).report)
    await refused(ConfigurationError, "workflow is 7", workflow=7)
    await refused(ConfigurationError, "without options", workflow=shop.report.options(timeout=5))
    await refused(ConfigurationError, "hour of '0 25", expression="0 25 * * *")
    await refused(ConfigurationError, "belongs into code", expression=CronTrigger(hour=9, timezone="UTC"))
    await refused(ConfigurationError, "Mars/Olympus", timezone="Mars/Olympus")
    await refused(ConfigurationError, "catch_up", catch_up="some")
    await refused(ConfigurationError, "queue", queue="_dbos_internal")
    await refused(QueueNotFoundError, "'nights' does not exist", queue="nights")
    await refused(ConfigurationError, "name", name="")
    await refused(ConfigurationError, "name", name="x" * 201)
    await refused(SerializationError, "context", context=object())
    with pytest.raises(ConfigurationError, match="ScheduleDefinition"):
        await shop.do("apply", ["report"])
    with pytest.raises(ConfigurationError, match="each name once"):
        await shop.do("apply", [ScheduleDefinition("x", "report", RARELY)] * 2)
    await shop.do("create", "x", "report", RARELY)
    with pytest.raises(ScheduleExistsError):
        await shop.do("create", "x", "report", RARELY)
    for start, end in (
        (days_ago(0), days_ago(1)),
        (days_ago(2).replace(tzinfo=None), days_ago(1)),
        ("2026-01-01", days_ago(0)),
    ):
        with pytest.raises(ConfigurationError, match="start is"):
            await shop.do("backfill", "x", start, end)
    await shop.do("set", "x", expression="* * * * * *")
    with pytest.raises(ConfigurationError, match="at most 100000"):
        await shop.do("backfill", "x", days_ago(2), days_ago(0))


async def test_a_context_needs_a_workflow_that_takes_it(shop: Shop) -> None:
    def plain(scheduled_at: datetime, actual_at: datetime) -> None: ...

    async def plain_async(scheduled_at: datetime, actual_at: datetime) -> None: ...

    shop.dbos.workflow(name="plain")(plain_async if isinstance(shop.dbos, AsyncDBOS) else plain)
    with pytest.raises(ConfigurationError, match="scheduled_at, actual_at, context"):
        await shop.do("create", "x", "plain", RARELY, context=1)
    await shop.do("create", "x", "plain", RARELY)
    with pytest.raises(ConfigurationError, match="scheduled_at, actual_at, context"):
        await shop.do("set", "x", context=1)


async def test_a_workflow_that_is_run_again_makes_and_triggers_nothing_twice(
    shop: Shop, database: TestDatabase
) -> None:
    dbos, seen = shop.dbos, []

    def note(*answers: Any) -> None:
        seen.append(answers)
        if len(seen) == 1:
            raise Interruption

    def work() -> None:
        made = dbos.schedules.create("rare", "report", RARELY)
        note(made, dbos.schedules.trigger("rare").workflow_id, dbos.schedules.list())

    async def work_async() -> None:
        made = await dbos.schedules.create("rare", "report", RARELY)
        note(made, (await dbos.schedules.trigger("rare")).workflow_id, await dbos.schedules.list())

    workflow = dbos.workflow(name="work")(work_async if isinstance(dbos, AsyncDBOS) else work)
    with pytest.raises(Interruption):
        await of(workflow.options(workflow_id="w")())
    await of(dbos.handle("w").result(timeout=PATIENCE))

    assert seen[0] == seen[1]
    assert runs_of(database, "rare") == [seen[0][1]]
    steps = await of(dbos.handle("w").steps())
    assert [step.name for step in steps] == ["schedules.create_many", "schedules.trigger", "schedules.list"]


def test_a_method_of_a_registered_instance_can_be_scheduled(dbos: DBOS, database: TestDatabase) -> None:
    class Branch:
        def __init__(self, city: str) -> None:
            self.city = city

        @dbos.workflow(name="Branch.report")
        def report(self, scheduled_at: datetime, actual_at: datetime) -> str:
            return self.city

    oslo = dbos.register(Branch("Oslo"), name="oslo")
    dbos.schedules.create("oslo", oslo.report, RARELY)
    assert dbos.schedules.trigger("oslo").result(timeout=PATIENCE) == "Oslo"
    with pytest.raises(ConfigurationError, match=r"instance\.method"):
        dbos.schedules.create("all", "Branch.report", RARELY)


def test_a_process_that_executes_nothing_can_make_schedules(database: TestDatabase) -> None:
    web = DBOS(database.make_engine(), name="shop")
    workflow = Shop(web).report
    web.schedules.create("daily", workflow, DAILY)
    change_row(database, "daily", next_fire_at=days_ago(0))
    with launched(database) as worker:
        Shop(worker)
        eventually(lambda: runs_of(database, "daily"))


def test_schedules_need_a_database_and_no_transaction(dbos: DBOS) -> None:
    with pytest.raises(NotBoundError):
        DBOS(name="other").schedules.list()

    @dbos.transaction
    def pause(session: Session) -> None:
        dbos.schedules.pause("x")

    with pytest.raises(SessionMisuseError, match=r"schedules\.pause\(\) in a transaction"):
        pause()


def test_a_declared_schedule_that_was_deleted_comes_back_at_the_next_launch(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop", config=STILL)

    @dbos.scheduled(RARELY)
    @dbos.workflow(name="report")
    def report(scheduled_at: datetime, actual_at: datetime) -> None: ...

    with dbos.launch():
        dbos.schedules.delete("report")
        assert dbos.schedules.list() == []
    with dbos.launch(database.make_engine()):
        assert [one.declared for one in dbos.schedules.list()] == [True]
