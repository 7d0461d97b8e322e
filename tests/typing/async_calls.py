"""What type checkers accept and refuse of coroutines; a line that must be refused says so at its end."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar, assert_type

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from dbos_orm import AsyncDBOS, AsyncStagedHandle, AsyncWorkflowHandle, Call, Retry, ScheduleInfo

T = TypeVar("T")


class ShopSession(AsyncSession):
    """A subclass of the user's."""


engine = create_async_engine("postgresql+asyncpg://localhost/shop")
dbos = AsyncDBOS(engine, name="shop")


@dbos.workflow
async def checkout(order_id: int, *, express: bool = False) -> str:
    return f"{order_id} {express}"


@dbos.workflow(name="quote")
async def quote(items: list[str]) -> float:
    return float(len(items))


@dbos.step
async def charge(total: int) -> str:
    return str(total)


@dbos.step(retry=Retry(max_attempts=5))
async def ask(item: str) -> int:
    return len(item)


@dbos.step
def weigh(item: str) -> float:
    return float(len(item))


@dbos.step(name="hash")
def hash_of(item: str) -> bytes:
    return item.encode()


@dbos.step
async def first_of(items: list[T]) -> T:
    return items[0]


@dbos.transaction
async def reserve(session: AsyncSession, order_id: int) -> int:
    return order_id


@dbos.transaction(sessionmaker=async_sessionmaker(engine, class_=ShopSession))
async def release(session: ShopSession, order_id: int) -> bool:
    return True


class Shop:
    """Methods of every kind."""

    @dbos.workflow
    async def process(self, order_id: int) -> str:
        assert_type(await self.price("tea"), int)
        assert_type(await self.store(order_id), bool)
        return ""

    @dbos.step
    async def price(self, item: str) -> int:
        return len(item)

    @dbos.step
    def weigh(self, item: str) -> float:
        return 1.0

    @dbos.transaction
    async def store(self, session: AsyncSession, order_id: int) -> bool:
        return True

    @dbos.transaction(max_attempts=3)
    async def remove(self, session: ShopSession, order_id: int) -> bool:
        return True

    @staticmethod
    @dbos.workflow
    async def greet(name: str) -> str:
        return name


def show(handle: AsyncWorkflowHandle[object]) -> None: ...


async def workflows(session: AsyncSession, sync_session: Session, connection: AsyncConnection) -> None:
    assert_type(await checkout(42), str)
    await assert_type(checkout(42), Coroutine[None, None, str])
    assert_type(await checkout.start(42, express=True), AsyncWorkflowHandle[str])
    assert_type(await (await checkout.start(42)).result(), str)
    assert_type(checkout.handle("w"), AsyncWorkflowHandle[str])
    assert_type(await checkout.options(workflow_id="w").start(42), AsyncWorkflowHandle[str])
    assert_type(checkout.call(42), Call[str])
    assert_type(await dbos.named("checkout")(1), Any)
    queued = checkout.options(queue=dbos.queue("orders"), priority=1)
    assert_type(await dbos.start_many([checkout.call(42), queued.call(43)]), list[AsyncWorkflowHandle[str]])
    assert_type(await dbos.start_many([checkout.call(42)], session=session), list[AsyncStagedHandle[str]])
    assert_type(dbos.start_many([checkout.call(42)], session=sync_session), list[AsyncStagedHandle[str]])
    await checkout.handle("w").set_delay(1)
    assert_type(await checkout.start_in(session, 42), AsyncStagedHandle[str])
    assert_type(await checkout.start_in(connection, 42), AsyncStagedHandle[str])
    assert_type(checkout.start_in(sync_session, 42), AsyncStagedHandle[str])
    show(await checkout.start_in(session, 42))
    show(await quote.start(["tea"]))

    await dbos.start_many([42])  # refused
    await dbos.start_many([checkout.call(42)], session=engine)  # refused
    await checkout("42")  # refused
    await checkout.start()  # refused
    checkout.call("42")  # refused
    checkout.options(workflow_id=7)  # refused
    checkout(42).upper()  # refused
    await checkout.start_in(session, "42")  # refused
    await checkout.start_in(engine, 42)  # refused
    number: int = await checkout(42)  # refused
    assert number


async def together() -> None:
    assert_type(await asyncio.gather(charge(1), ask("tea")), tuple[str, int])
    assert_type(await asyncio.gather(charge(1), weigh("tea"), reserve(1)), tuple[str, float, int])
    assert_type(await asyncio.gather(*(ask(item) for item in ("tea", "milk"))), list[int])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ask("tea"))
    assert_type(task.result(), int)
    handles = [await quote.start(["tea"])]
    assert_type(await asyncio.gather(*(handle.result() for handle in handles)), list[float])


async def plain_functions() -> None:
    @dbos.sync.workflow
    def count(item: str) -> int:
        return len(item)

    assert_type(await asyncio.to_thread(count, "tea"), int)
    assert_type((await asyncio.to_thread(count.start, "tea")).result(), int)
    count(7)  # refused


async def steps() -> None:
    assert_type(await charge(1), str)
    assert_type(await weigh("tea"), float)
    assert_type(await hash_of("tea"), bytes)
    assert_type(await first_of([1]), int)
    assert_type(await dbos.step(len, name="length")("abc"), int)
    assert_type(await ask.options(timeout=1)("tea"), int)
    assert_type(await charge.start(1), AsyncWorkflowHandle[str])
    await charge.start("1")  # refused

    both = await dbos.gather(ask("tea"), charge(1))
    assert_type(both, tuple[int, str])
    assert_type(await dbos.gather(*[charge(number) for number in range(3)]), list[str])
    assert_type(await dbos.gather(ask("tea"), return_exceptions=True), tuple[int | BaseException])
    assert_type(dbos.task(charge(1), name="charge"), asyncio.Task[str])

    await charge("1")  # refused
    dbos.task(charge)  # refused
    await dbos.gather(1)  # refused
    await weigh(1)  # refused
    await dbos.step(len, name="length")(7)  # refused


async def transactions(session: AsyncSession, shop_session: ShopSession) -> None:
    assert_type(await reserve(42), int)
    assert_type(await reserve.within(shop_session, 42), int)
    assert_type(await release(42), bool)

    await reserve(session, 42)  # refused
    await reserve("42")  # refused
    await release.within(session, 42)  # refused


async def methods(session: AsyncSession) -> None:
    shop = dbos.register(Shop(), name="eu")
    assert_type(await shop.process(1), str)
    assert_type(await shop.process.start(1), AsyncWorkflowHandle[str])
    assert_type(shop.process.options(workflow_id="w").call(1), Call[str])
    assert_type(await shop.price("tea"), int)
    assert_type(await shop.weigh("tea"), float)
    assert_type(await shop.store(1), bool)
    assert_type(await shop.remove(1), bool)
    assert_type(await shop.store.within(session, 1), bool)
    assert_type(await Shop.process(shop, 1), str)
    assert_type(await Shop.greet("you"), str)
    assert_type(await asyncio.gather(shop.price("tea"), shop.process(1)), tuple[int, str])

    await shop.process("1")  # refused
    await shop.price(1)  # refused
    await shop.store(session, 1)  # refused
    await shop.remove.within(session, 1)  # refused
    await Shop.process(1)  # refused


def plain(order_id: int) -> int:
    return order_id


def plain_transaction(session: Session) -> int:
    return 1


dbos.workflow(plain)  # refused
dbos.transaction(plain_transaction)  # refused


@dbos.scheduled("@daily")
@dbos.workflow(name="report")
async def report(scheduled_at: datetime, actual_at: datetime) -> str:
    return f"{scheduled_at} {actual_at}"


async def schedules() -> None:
    assert_type(await dbos.schedules.list(), list[ScheduleInfo])
    assert_type(await dbos.schedules.trigger("report"), AsyncWorkflowHandle[Any])
    assert_type(await (await report.start(datetime.now(UTC), datetime.now(UTC))).result(), str)
