"""The table of mistakes: what is done wrong, and what is said about it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Config, Debounce, Retry, async_sqlite_engine, sqlite_engine
from dbos_orm.errors import (
    ConfigurationError,
    ConflictingRegistrationError,
    DBOSError,
    NotBoundError,
    NotInWorkflowError,
    NotLaunchedError,
    NotRegisteredError,
    QueueNotFoundError,
    ScheduleNotFoundError,
    SerializationError,
)
from tests.integration.shop import Item


@dataclass(frozen=True)
class Case:
    """A mistake, and what is said about it. ``facts`` are attributes of the error; ``said`` is in its message."""

    make: Callable[[Any], object]
    kind: type[DBOSError]
    facts: dict[str, object] = field(default_factory=dict)
    said: str = ""


def wrong(name: str, value: object, make: Callable[[Any], object], expected: str = "") -> Case:
    """A setting or an option that cannot work: it is named, with its value."""
    return Case(make, ConfigurationError, {"field": name, "value": value}, expected)


def config(name: str, value: Any, expected: str = "") -> Case:
    return wrong(name, value, lambda app: Config(**{name: value}), expected)


def option(name: str, value: Any, expected: str = "") -> Case:
    return wrong(name, value, lambda app: app.work.options(**{name: value}), expected)


def retry(name: str, value: Any, expected: str = "") -> Case:
    return wrong(f"retry.{name}", value, lambda app: app.dbos.step(retry=Retry(**{name: value}))(plain), expected)


def decorated(decorator: str, function: Any, expected: str) -> Case:
    return Case(lambda app: getattr(app.dbos, decorator)(function), ConfigurationError, {"field": decorator}, expected)


def plain(number: int = 0) -> int:
    return number


def other(number: int = 0) -> int:
    return number


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def without_session(number: int) -> None: ...


def session_behind(*, session: Session) -> None: ...


def async_session(session: AsyncSession) -> None: ...


class Shop:
    @classmethod
    def pay(cls) -> None: ...


class Thing:
    """Neither recorded nor registered."""


CLASS_METHOD: Any = vars(Shop)["pay"]
SEVEN: Any = 7
NAIVE = datetime(2026, 11, 22)  # noqa: DTZ001
PAST_ID = "x" * 1001

SETTINGS = [
    config("lease", 0, "more than zero"),
    config("lease", "30", "a timedelta, or a finite number of seconds"),
    config("lease", True),
    config("heartbeat", math.nan),
    config("heartbeat", 20, "at most half the lease of 30 s"),
    config("tick", timedelta(0)),
    config("lock_timeout", -1),
    config("launch_timeout", math.inf),
    config("sqlite_busy_timeout", None),
    config("pool_size", 0, "a whole number from 1"),
    config("worker_threads", 1.5),
    config("transaction_attempts", True),
    config("batch_size", "many"),
    config("max_recovery_attempts", 0),
    config("serializer", "yaml", "one of ['json', 'pickle']"),
    config("executor_id", 7),
    config("executor_id", ""),
    config("application_version", 7),
    wrong("name", "", lambda app: DBOS(name="")),
    wrong("name", None, lambda app: DBOS(name=None)),  # type: ignore[arg-type]
    wrong("name", "a\x00", lambda app: AsyncDBOS(name="a\x00")),
    wrong("name", "a\ud800", lambda app: app.dbos.workflow(plain, name="a\ud800")),
    wrong("modules", "shop.orders", lambda app: DBOS(name="shop", modules="shop.orders"), "a list of module names"),
    wrong("run_context", 7, lambda app: DBOS(name="shop", run_context=SEVEN), "gives a context manager"),
    wrong("config", {}, lambda app: DBOS(name="shop", config={})),  # type: ignore[arg-type]
]

OPTIONS = [
    option("workflow_id", ""),
    option("workflow_id", 17, "a text of 1 to 1000 bytes in UTF-8"),
    option("workflow_id", PAST_ID),
    option("workflow_id", "a\x00"),
    option("on_existing", "ignore", "'return' or 'raise'"),
    wrong("on_existing", "raise", lambda app: app.work.options(on_existing="raise").start(1), "a workflow_id with it"),
    option("timeout", 0, "more than zero, or None"),
    option("timeout", "60"),
    option("timeout", 1e300),
    option("deadline", NAIVE, "a datetime with a time zone"),
    option("deadline", 60),
    option("version", ""),
    option("version", 7),
    option("attributes", [], "a dict with text keys"),
    option("attributes", {1: 2}),
    option("attributes", {"a": {1, 2}}, "plain JSON"),
    option("attributes", {"a": math.nan}, "plain JSON"),
    option("detached", "yes", "True or False"),
    wrong("priority", 1, lambda app: app.work.options(priority=1).start(1), "a queue with it"),
    option("priority", "high", "a whole number of 32 bits"),
    option("priority", True),
    option("priority", 2**31),
    wrong("partition_key", "a", lambda app: app.work.options(partition_key="a").start(1), "a queue with it"),
    option("partition_key", 7, "a text of 1 to 1000 bytes"),
    wrong("deduplication_id", "a", lambda app: app.work.options(deduplication_id="a").start(1), "a queue with it"),
    option("deduplication_id", ""),
    option("deduplication_id", "_dbos", "does not begin with '_dbos'"),
    wrong("on_duplicate", "raise", lambda app: app.work.options(on_duplicate="raise").start(1), "a queue with it"),
    wrong(
        "on_duplicate",
        "return",
        lambda app: app.work.options(on_duplicate="return", queue="orders").call(1),
        "a deduplication_id with it",
    ),
    option("on_duplicate", "ignore", "'return' or 'raise'"),
    option("queue", 7, "a queue or its name"),
    option("queue", "", "a queue or its name"),
    option("queue", "_dbos_internal", "does not begin with '_dbos'"),
    Case(
        lambda app: app.work.options(queue=DBOS(name="bank").queue("orders")),
        ConfigurationError,
        {"field": "queue"},
        "a queue of application 'shop'",
    ),
    wrong("queue", "orders", lambda app: app.work.options(queue="orders")(), "which runs here and now; start it"),
    wrong("delay", 1, lambda app: app.work.options(delay=1)(), "which runs here and now"),
    wrong("concurrency", 0, lambda app: app.dbos.queues.set("orders", concurrency=0), "a whole number from 1"),
    wrong("paused", True, lambda app: app.dbos.queues.set("orders", paused=True), "a limit of ['concurrency', "),
    Case(
        lambda app: app.dbos.queues.pause("nowhere"),
        QueueNotFoundError,
        {"queue": "nowhere"},
        "declare it with dbos.queue('nowhere')",
    ),
    Case(
        lambda app: app.work.options(queue="nowhere").start(1),
        QueueNotFoundError,
        {"queue": "nowhere"},
        "declare it with dbos.queue('nowhere')",
    ),
    option("delay", -1, "zero or more"),
    option("delay", "1"),
    option("debounce", "order-7", "a Debounce"),
    wrong("debounce.key", "", lambda app: app.work.options(debounce=Debounce("", 1))),
    wrong("debounce.period", 0, lambda app: app.work.options(debounce=Debounce("a", 0)), "more than zero"),
    wrong("debounce.max_wait", 1, lambda app: app.work.options(debounce=Debounce("a", 2, 1)), "at least the period"),
    wrong("delay", 1, lambda app: app.work.options(debounce=Debounce("a", 1), delay=1).start(1), "no debounce with it"),
    wrong(
        "workflow_id",
        "w",
        lambda app: app.work.options(debounce=Debounce("a", 1), workflow_id="w").start(1),
        "no debounce with it",
    ),
    wrong(
        "deduplication_id",
        "w",
        lambda app: app.work.options(debounce=Debounce("a", 1), deduplication_id="w", queue="q").start(1),
        "no debounce with it",
    ),
    option("id", "x", "an option of"),
    wrong("duration", "1", lambda app: app.in_workflow(lambda: app.dbos.sleep("1"))),
    wrong("timeout", "1", lambda app: app.handle.result(timeout="1")),
]

DECORATORS = [
    decorated("workflow", coroutine, "use AsyncDBOS for async def functions"),
    decorated("step", coroutine, "use AsyncDBOS for async def functions"),
    decorated("transaction", coroutine, "use AsyncDBOS for async def functions"),
    decorated("workflow", CLASS_METHOD, "not a class method"),
    decorated("step", CLASS_METHOD, "not a class method"),
    decorated("transaction", CLASS_METHOD, "not a class method"),
    decorated("workflow", staticmethod(plain), "write @staticmethod above @workflow"),
    decorated("workflow", generator, "a function that returns its result"),
    decorated("step", generator, "return a list, do not yield"),
    decorated("workflow", 7, "write @workflow above a def"),
    decorated("transaction", without_session, "whose first parameter is a Session"),
    decorated("transaction", session_behind, "put it first"),
    decorated("transaction", async_session, "whose first parameter is a Session"),
    wrong("queue", 7, lambda app: app.dbos.workflow(queue=7)(other), "a queue or its name"),
    wrong("name", " ", lambda app: app.dbos.workflow(name=" ")(other)),
    wrong("name", 7, lambda app: app.dbos.step(name=7)(other)),
    wrong("version", 7, lambda app: app.dbos.workflow(version=7)(other)),
    wrong("timeout", -1, lambda app: app.dbos.workflow(timeout=-1)(other)),
    wrong("max_recovery_attempts", -1, lambda app: app.dbos.workflow(max_recovery_attempts=-1)(other)),
    wrong("retry", 3, lambda app: app.dbos.step(retry=3)(other), "a Retry"),
    wrong("timeout", 0, lambda app: app.dbos.step(timeout=0)(other), "leave it out for no limit"),
    wrong("timeout", "5", lambda app: app.step.options(timeout="5"), "a timedelta, or a finite number of seconds"),
    wrong("retry", 3, lambda app: app.step.options(retry=3), "a Retry"),
    wrong("queue", "orders", lambda app: app.step.options(queue="orders"), "an option of ['retry', 'timeout']"),
    wrong("max_attempts", 0, lambda app: app.dbos.transaction(max_attempts=0)(with_session)),
    wrong("isolation_level", 7, lambda app: app.dbos.transaction(isolation_level=7)(with_session)),
    retry("max_attempts", 0, "a whole number from 1"),
    retry("max_attempts", True),
    retry("backoff", -1),
    retry("backoff", "1"),
    retry("max_backoff", math.inf),
    retry("backoff_rate", 0.5, "a number from 1"),
    retry("backoff_rate", "2"),
    retry("retry_if", [KeyError], "a tuple of exception types, or a function"),
    retry("retry_if", (KeyError, "ValueError"), "a tuple of exception types, or a function"),
]


def with_session(session: Session) -> None: ...


REGISTRATION = [
    Case(
        lambda app: app.dbos.workflow(name="work")(other),
        ConflictingRegistrationError,
        {"name": "work"},
        "give one of them another name=",
    ),
    Case(
        lambda app: app.dbos.step(name="step")(other),
        ConflictingRegistrationError,
        {"name": "step"},
        "mistakes.other",
    ),
    Case(
        lambda app: app.dbos.transaction(name="step")(with_session),
        ConflictingRegistrationError,
        {"name": "step"},
        "is registered as",
    ),
    Case(
        lambda app: app.dbos._runtime.application.registry.workflow("missing"),
        NotRegisteredError,
        {"name": "missing", "registered": ["run", "work"]},
        "import its module before launch",
    ),
]

VALUES = [
    Case(
        lambda app: app.work(Thing()),
        SerializationError,
        {"path": "arguments.value", "type_name": "Thing"},
        "dbos.types.register",
    ),
    Case(
        lambda app: app.work.start({"items": [1, {"thing": Thing()}]}),
        SerializationError,
        {"path": "arguments.value.items[1].thing"},
        "Thing",
    ),
    Case(
        lambda app: app.work(Item(name="tea")),
        SerializationError,
        {"path": "arguments.value", "type_name": "Item"},
        "pass its primary key",
    ),
    Case(lambda app: app.work([plain]), SerializationError, {}, "code is not recorded; pass its name"),
    Case(lambda app: app.work(iter([1])), SerializationError, {}, "pass list(...) of it"),
    Case(lambda app: app.work(ValueError("no")), SerializationError, {}, "raise it, or pass its text"),
]

UNREADY = [
    Case(lambda app: app.unbound(), NotBoundError, {"application": "unbound"}, "call bind(engine) or launch(engine)"),
    Case(lambda app: app.unbound.start(), NotBoundError, {"application": "unbound"}, "call bind(engine)"),
    Case(lambda app: app.unbound.handle("w").result(), NotBoundError, {"operation": "result()"}, "call bind(engine)"),
    Case(lambda app: app.unbound_transaction(), NotBoundError, {"application": "unbound"}, "call bind(engine)"),
    Case(lambda app: app.bound(), NotLaunchedError, {"application": "bound"}, "is not launched"),
    Case(lambda app: app.dbos.launch(), ConfigurationError, {"field": "launch", "value": "shop"}, "shut down first"),
    Case(lambda app: app.dbos.bind(app.engine), ConfigurationError, {"field": "bind"}, "shut down first"),
    Case(lambda app: app.dbos.now(), NotInWorkflowError, {"operation": "dbos.now()"}, "call it from a function under"),
]

BINDS = [
    wrong("url", "", lambda app: DBOS(name="shop").bind(""), "a database URL"),
    wrong("url", "nonsense", lambda app: DBOS(name="shop").bind("nonsense"), "a database URL"),
    wrong("url", "mysql://h/d", lambda app: DBOS(name="shop").bind("mysql://h/d"), "PostgreSQL or SQLite"),
    wrong("url", "postgresql+pg8000://h/d", lambda app: DBOS(name="shop").bind("postgresql+pg8000://h/d"),
          "pip install pg8000"),
    wrong("url", "postgresql+nonsense://h/d", lambda app: DBOS(name="shop").bind("postgresql+nonsense://h/d"),
          "a driver that SQLAlchemy knows"),
    wrong("url", "sqlite://", lambda app: DBOS(name="shop").bind("sqlite://"), "a SQLite database in a file"),
    wrong("url", "sqlite://", lambda app: sqlite_engine("sqlite://"), "a SQLite database in a file"),
    Case(lambda app: sqlite_engine("sqlite:///:memory:"), ConfigurationError, {"field": "url"}, "in a file"),
    wrong("url", "sqlite+aiosqlite://", lambda app: async_sqlite_engine("sqlite+aiosqlite://"), "in a file"),
    wrong("url", "sqlite+aiosqlite://", lambda app: AsyncDBOS(name="shop").bind("sqlite+aiosqlite://"), "in a file"),
    wrong("url", "sqlite+aiosqlite://", lambda app: AsyncDBOS(name="shop").bind("sqlite://"), "in a file"),
    wrong("url", "postgresql://h/d", lambda app: sqlite_engine("postgresql://h/d"), "a SQLite URL"),
    wrong("url", "postgresql://h/d", lambda app: async_sqlite_engine("postgresql://h/d"), "a SQLite URL"),
    wrong("bind", 7, lambda app: DBOS(name="shop").bind(SEVEN), "an Engine, a sessionmaker, a scoped_session"),
    wrong("bind", 7, lambda app: AsyncDBOS(name="shop").bind(SEVEN), "an AsyncEngine, an async_sessionmaker"),
]  # fmt: skip

RARELY = "0 0 1 1 *"


def scheduled(schedule: Any, **options: Any) -> Callable[[Any], object]:
    """A declaration, of a workflow that takes what a schedule gives."""

    def declare(app: Any) -> object:
        return app.dbos.scheduled(schedule, **options)(app.dbos.workflow(name="timed")(timed))

    return declare


def timed(scheduled_at: datetime, actual_at: datetime) -> None: ...


SCHEDULES = [
    wrong("hour of '0 25 * * *'", "25", scheduled("0 25 * * *"), "0 to 23"),
    wrong("day of week of '0 0 * * 8'", "8", scheduled("0 0 * * 8"), "0 and 7 are Sunday"),
    wrong("expression", "0 0 *", scheduled("0 0 *"), "5 or 6 fields, not 3"),
    wrong("expression", "@often", scheduled("@often"), "'@daily'"),
    wrong("expression", "0 0 30 2 *", scheduled("0 0 30 2 *"), "a day that exists"),
    wrong("schedule", 7, scheduled(7), "cron text, or a trigger"),
    wrong("timezone", "Mars/Olympus", scheduled(RARELY, timezone="Mars/Olympus"), "IANA"),
    wrong("catch_up", "some", scheduled(RARELY, catch_up="some"), "'none', 'last', 'all'"),
    wrong("name", "", scheduled(RARELY, name=""), "a text of 1 to 200 characters"),
    wrong("queue", "_dbos_internal", scheduled(RARELY, queue="_dbos_internal"), "a name that a queue can have"),
    Case(lambda app: app.dbos.scheduled(RARELY)(app.work), ConfigurationError, {"field": "workflow"}, "scheduled_at"),
    Case(lambda app: app.dbos.scheduled(RARELY)(timed), ConfigurationError, {"field": "scheduled"}, "above"),
    Case(lambda app: app.dbos.schedules.create("s", "nobody", RARELY), NotRegisteredError, {"name": "nobody"}),
    Case(lambda app: app.dbos.schedules.create("s", "work", RARELY), ConfigurationError, {"field": "workflow"}),
    Case(lambda app: app.dbos.schedules.get("missing"), ScheduleNotFoundError, {"schedule": "missing"}, "known: []"),
]

TABLE = {
    "schedules": SCHEDULES,
    "settings": SETTINGS,
    "options": OPTIONS,
    "decorators": DECORATORS,
    "registration": REGISTRATION,
    "values": VALUES,
    "unready": UNREADY,
    "binds": BINDS,
}
