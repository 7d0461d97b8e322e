"""What type checkers accept and refuse of synchronous code; a line that must be refused says so at its end."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, assert_type

from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dbos_orm import (
    DBOS,
    Call,
    Debounce,
    Queue,
    QueueInfo,
    RateLimit,
    Retry,
    ScheduleDefinition,
    ScheduleInfo,
    StagedHandle,
    StepFuture,
    WorkflowHandle,
    WorkflowState,
)

T = TypeVar("T")


class ShopSession(Session):
    """A subclass of the user's."""


engine = create_engine("postgresql+psycopg2://localhost/shop")
dbos = DBOS(engine, name="shop")


@dbos.workflow
def checkout(order_id: int, *, express: bool = False) -> str:
    return f"{order_id} {express}"


@dbos.workflow(name="quote", timeout=timedelta(minutes=1), coerce=True)
def quote(items: list[str]) -> float:
    return float(len(items))


@dbos.step
def charge(total: int, currency: str = "EUR") -> str:
    return f"{total} {currency}"


@dbos.step(retry=Retry(max_attempts=5), timeout=30)
def ask(item: str) -> int:
    return len(item)


@dbos.step
def first_of(items: list[T]) -> T:
    return items[0]


@dbos.transaction
def reserve(session: Session, order_id: int) -> int:
    return order_id


@dbos.transaction(isolation_level="SERIALIZABLE")
def release(session: ShopSession, order_id: int, *, force: bool = False) -> None: ...


@dbos.transaction(sessionmaker=sessionmaker(engine, class_=ShopSession))
def elsewhere(session: ShopSession, note: str) -> bool:
    return bool(note)


# -- workflows -----------------------------------------------------------------------------------

assert_type(checkout(42), str)
assert_type(checkout(42, express=True), str)
assert_type(quote(["tea"]), float)
assert_type(checkout.start(42), WorkflowHandle[str])
assert_type(checkout.start(42).result(), str)
assert_type(checkout.start(42).result(timeout=timedelta(seconds=1)), str)
assert_type(checkout.start(42).status(), WorkflowState)
assert_type(checkout.handle("w"), WorkflowHandle[str])
assert_type(dbos.handle("w"), WorkflowHandle[Any])
assert_type(dbos.handle("w").result(), Any)
assert_type(checkout.options(workflow_id="w", timeout=30).start(42), WorkflowHandle[str])
assert_type(checkout.options(deadline=datetime.now().astimezone(), attributes={"tenant": 7})(42), str)
assert_type(checkout.call(42), Call[str])
assert_type(checkout.options(workflow_id="w").call(42, express=True), Call[str])
assert_type(dbos.named("checkout").start(1, two=2), WorkflowHandle[Any])

orders = dbos.queue("orders", concurrency=4, rate_limit=RateLimit(100, timedelta(minutes=1)), on_conflict="update")
assert_type(orders, Queue)
queued = checkout.options(queue=orders, priority=1, partition_key="acme", delay=timedelta(minutes=1))
assert_type(queued.options(queue="orders", deduplication_id="d", on_duplicate="return").start(42), WorkflowHandle[str])
assert_type(checkout.options(debounce=Debounce("order-42", 5, max_wait=60)).start(42), WorkflowHandle[str])
assert_type(dbos.start_many([checkout.call(42), queued.call(43)]), list[WorkflowHandle[str]])
dbos.start_many([checkout.call(42)])[0].set_delay(timedelta(seconds=1))

dbos.queue("orders", limit=4)  # refused
dbos.queue("orders", on_conflict="raise")  # refused
dbos.workflow(queue=7)  # refused
checkout.options(queue=7)  # refused
checkout.options(priority="high")  # refused
checkout.options(on_duplicate="ignore")  # refused
checkout.options(debounce="order-42")  # refused
dbos.start_many([42])  # refused
dbos.start_many([(42,), (43,)])  # refused
dbos.start_many([checkout.call(42)], session=engine)  # refused
floats: list[WorkflowHandle[float]] = dbos.start_many([checkout.call(42)])  # refused
checkout("42")  # refused
checkout()  # refused
checkout(42, True)  # refused
checkout(42, fast=True)  # refused
checkout.start("42")  # refused
checkout.start(42, express="yes")  # refused
checkout.call("42")  # refused
checkout.call()  # refused
checkout.options(workflow_id=7)  # refused
checkout.options(workflow="w")  # refused
checkout.options(on_existing="ignore")  # refused
checkout.options(attributes={"tenant": object()})  # refused
checkout.options(deadline=60)  # refused
checkout.options("w")  # refused
checkout.start(42).result("1")  # refused
quote("tea").upper()  # refused
number: int = checkout(42)  # refused
dbos.workflow(name=7)  # refused
dbos.workflow(timeout="1")  # refused


# -- steps ---------------------------------------------------------------------------------------

assert_type(charge(1), str)
assert_type(charge(1, currency="USD"), str)
assert_type(ask("tea"), int)
assert_type(first_of([1, 2]), int)
assert_type(first_of(["a"]), str)
assert_type(dbos.step(len, name="length")("abc"), int)
assert_type(ask.options(timeout=1)("tea"), int)
assert_type(charge.start(1, currency="USD"), WorkflowHandle[str])
charge.start("1")  # refused
assert_type(charge.submit(1, currency="USD"), StepFuture[str])
assert_type(ask.options(retry=None).submit("tea").result(timeout=1), int)
assert_type(reserve.submit(42), StepFuture[int])
assert_type(dbos.gather(checkout.start(42), charge.submit(1)), list[str])

charge.submit("1")  # refused
ask.options(time=1)  # refused
reserve.submit("42")  # refused
dbos.gather(charge(1))  # refused


charge("1")  # refused
charge(1, currency=7)  # refused
ask()  # refused
ask.options(timeouts=1)  # refused
dbos.step(retry=3)  # refused
dbos.step(len, name="length")(7)  # refused


# -- transactions --------------------------------------------------------------------------------

session, shop_session = Session(engine), ShopSession(engine)
assert_type(reserve(42), int)
assert_type(reserve.within(session, 42), int)
assert_type(reserve.within(shop_session, 42), int)
assert_type(release(42, force=True), None)
assert_type(elsewhere("x"), bool)
assert_type(elsewhere.within(shop_session, "x"), bool)

reserve(session, 42)  # refused
reserve("42")  # refused
reserve.within(42)  # refused
release.within(session, 42)  # refused
elsewhere.within(session, "x")  # refused
elsewhere(1)  # refused


def without_session(order_id: int) -> int:
    return order_id


def with_keyword(*, session: Session) -> None: ...


async def with_async(session: AsyncSession) -> None: ...


dbos.transaction(without_session)  # refused
dbos.transaction(with_keyword)  # refused
dbos.transaction(with_async)  # refused


# -- the caller's transaction --------------------------------------------------------------------

connection: Connection = engine.connect()
assert_type(checkout.start_in(session, 42), StagedHandle[str])
assert_type(checkout.start_in(scoped_session(sessionmaker(engine)), 42, express=True).workflow_id, str)
assert_type(checkout.start_in(connection, 42).result(), str)
checkout.start_in(session, "42")  # refused
checkout.start_in(42)  # refused
checkout.start_in(engine, 42)  # refused


# -- handles -------------------------------------------------------------------------------------


def show(handle: WorkflowHandle[object]) -> None: ...


def total(handles: list[WorkflowHandle[float]]) -> float:
    return sum(handle.result() for handle in handles)


assert_type(dbos.start_many([checkout.call(42)], session=session), list[StagedHandle[str]])
staged: WorkflowHandle[str] = checkout.start_in(session, 42)
show(staged)
show(checkout.start(42))
total([quote.start(["tea"])])
total([checkout.start(42)])  # refused
wide: Call[object] = checkout.call(42)
narrow: Call[int] = checkout.call(42)  # refused


def apply(function: Callable[[int], str]) -> str:
    return function(1)


apply(checkout)
apply(charge)
apply(ask)  # refused


# -- methods -------------------------------------------------------------------------------------


class Shop:
    """Methods of every kind."""

    @dbos.workflow
    def process(self, order_id: int, *, express: bool = False) -> str:
        assert_type(self.price("tea"), int)
        assert_type(self.store(order_id), bool)
        return ""

    @dbos.workflow(name="Shop.other")
    def other(self) -> int:
        return 1

    @dbos.step
    def price(self, item: str) -> int:
        return len(item)

    @dbos.step(name="Shop.weigh")
    def weigh(self, item: str) -> float:
        return 1.0

    @dbos.transaction
    def store(self, session: Session, order_id: int) -> bool:
        return True

    @dbos.transaction(max_attempts=3)
    def remove(self, session: ShopSession, order_id: int) -> bool:
        return True

    @staticmethod
    @dbos.workflow
    def greet(name: str) -> str:
        return name


class Discounter(Shop):
    """Inherits them."""


shop = dbos.register(Shop(), name="eu")
assert_type(shop, Shop)
assert_type(shop.process(1), str)
assert_type(shop.process(1, express=True), str)
assert_type(shop.process.start(1), WorkflowHandle[str])
assert_type(shop.process.options(workflow_id="w").start(1).result(), str)
assert_type(shop.process.call(1), Call[str])
assert_type(shop.process.start_in(session, 1), StagedHandle[str])
assert_type(shop.other(), int)
assert_type(shop.price("tea"), int)
assert_type(shop.weigh("tea"), float)
assert_type(shop.weigh.options(timeout=1)("tea"), float)
assert_type(shop.price.submit("tea"), StepFuture[int])
assert_type(shop.store.submit(1), StepFuture[bool])
assert_type(shop.store(1), bool)
assert_type(shop.store.within(session, 1), bool)
assert_type(shop.remove(1), bool)
assert_type(shop.remove.within(shop_session, 1), bool)
assert_type(Discounter().process.start(1), WorkflowHandle[str])
assert_type(Shop.process(shop, 1), str)
assert_type(Shop.process.start(shop, 1), WorkflowHandle[str])
assert_type(Shop.price(shop, "tea"), int)
assert_type(Shop.greet("you"), str)
assert_type(Shop.greet.start("you"), WorkflowHandle[str])

shop.process("1")  # refused
shop.process(shop, 1)  # refused
shop.process.start()  # refused
shop.process.options(workflow_id="w").start("1")  # refused
shop.price(1)  # refused
shop.store("1")  # refused
shop.store(session, 1)  # refused
shop.remove.within(session, 1)  # refused
Shop.process(1)  # refused
Shop.greet(1)  # refused
dbos.register(shop)  # refused
dbos.register(shop, "eu")  # refused

mails = dbos.queue("mails", concurrency=8)
assert_type(dbos.queues.get(mails), QueueInfo)
assert_type(dbos.queues.list(), list[QueueInfo])
assert_type(dbos.queues.get("mails").lag, timedelta | None)
dbos.queues.set(mails, concurrency=None, rate_limit=RateLimit(100, 60))
dbos.queues.pause("mails")

dbos.queues.set("mails", concurrency="8")  # refused
dbos.queues.set("mails", paused=True)  # refused
dbos.queues.set("mails", partitioned=None)  # refused
dbos.queues.create(mails)  # refused
dbos.queues.get(8)  # refused


@dbos.scheduled("0 9 * * MON-FRI", timezone="Europe/Berlin", queue=mails, catch_up="all")
@dbos.workflow(name="report")
def report(scheduled_at: datetime, actual_at: datetime) -> str:
    return f"{scheduled_at} {actual_at}"


class Hourly:
    """Has the one method of APScheduler's triggers."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        return now


dbos.scheduled(Hourly(), name="trigger")(report)
moment = datetime(2026, 11, 22, tzinfo=UTC)
assert_type(report.start(scheduled_at=moment, actual_at=moment).result(), str)
assert_type(dbos.schedules.list(), list[ScheduleInfo])
assert_type(dbos.schedules.create("late", report, "0 22 * * *", context={"tenant": 7}), ScheduleInfo)
assert_type(dbos.schedules.set("late", queue=None, context=None), ScheduleInfo)
assert_type(dbos.schedules.trigger("late"), WorkflowHandle[Any])
assert_type(
    dbos.schedules.apply([ScheduleDefinition("a", report, "@daily"), ScheduleDefinition("b", "report", "@daily")]),
    list[ScheduleInfo],
)
dbos.scheduled("@daily")(checkout)  # refused
dbos.scheduled(7)  # refused
dbos.scheduled("@daily", catch_up="some")  # refused
dbos.schedules.create("late", checkout)  # refused
dbos.schedules.backfill("late", "2026-01-01", "2026-01-02")  # refused
