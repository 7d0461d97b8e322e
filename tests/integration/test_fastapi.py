"""FastAPI: a workflow, a step or a transaction is a route, and is called by one; in both colours."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS
from tests.databases import TestDatabase
from tests.integration.shop import Item, names_of_items


def tenant() -> str:
    return "eu"


Tenant = Annotated[str, Depends(tenant)]


def sync_app(dbos: DBOS) -> FastAPI:
    app = FastAPI()

    @app.get("/quote/{item}")
    @dbos.workflow
    def quote(item: str, tenant: Tenant, count: int = 1) -> dict[str, Any]:
        return {"item": item, "tenant": tenant, "count": count, "thread": threading.current_thread().name}

    @app.post("/items/{name}")
    @dbos.transaction
    def store(session: Session, name: str) -> int:
        session.add(item := Item(name=name))
        session.flush()
        return item.id

    @dbos.workflow
    def order(name: str) -> int:
        return store(name)

    @app.post("/orders/{name}")
    def place(name: str) -> str:
        return order.start(name).workflow_id

    app.get("/order/{name}")(order)
    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")


async def test_a_workflow_is_a_route(dbos: DBOS, database: TestDatabase) -> None:
    async with client_of(sync_app(dbos)) as client:
        answer = await client.get("/quote/tea", params={"count": "3"})
        assert answer.status_code == 200, answer.text
        assert {**answer.json(), "thread": ""} == {"item": "tea", "tenant": "eu", "count": 3, "thread": ""}
        # In a thread of the framework's: a workflow that is called must not block its loop.
        assert answer.json()["thread"].startswith("AnyIO worker thread")
        assert (await client.get("/quote/tea", params={"count": "many"})).status_code == 422
        assert (await client.post("/items/milk")).json() == 1
        assert (await client.get("/order/bread")).json() == 2
        workflow_id = (await client.post("/orders/salt")).json()
        assert await asyncio.to_thread(dbos.handle(workflow_id).result) == 3
    assert names_of_items(database) == ["bread", "milk", "salt"]


def test_the_schema_shows_what_a_caller_gives_and_no_session(dbos: DBOS) -> None:
    paths = sync_app(dbos).openapi()["paths"]
    assert [one["name"] for one in paths["/quote/{item}"]["get"]["parameters"]] == ["item", "count"]
    assert [one["name"] for one in paths["/items/{name}"]["post"]["parameters"]] == ["name"]
    schema = paths["/items/{name}"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema["type"] == "integer"


async def test_a_coroutine_is_a_route(async_dbos: AsyncDBOS, database: TestDatabase) -> None:
    dbos, app, loop = async_dbos, FastAPI(), asyncio.get_running_loop()

    @app.get("/quote/{item}")
    @dbos.workflow
    async def quote(item: str, tenant: Tenant, count: int = 1) -> dict[str, Any]:
        return {"item": item, "tenant": tenant, "count": count, "here": asyncio.get_running_loop() is loop}

    @app.post("/items/{name}")
    @dbos.transaction
    async def store(session: AsyncSession, name: str) -> int:
        session.add(item := Item(name=name))
        await session.flush()
        return item.id

    @app.get("/step/{number}")
    @dbos.step
    async def double(number: int) -> int:
        return 2 * number

    @dbos.workflow
    async def order(name: str) -> int:
        return await store(name)

    @app.post("/orders/{name}")
    async def place(name: str) -> int:
        return await (await order.start(name)).result()

    async with client_of(app) as client:
        answer = await client.get("/quote/tea", params={"count": "3"})
        assert answer.json() == {"item": "tea", "tenant": "eu", "count": 3, "here": True}
        assert (await client.post("/items/milk")).json() == 1
        assert (await client.get("/step/4")).json() == 8
        assert (await client.post("/orders/salt")).json() == 2
    assert names_of_items(database) == ["milk", "salt"]


@pytest.mark.parametrize("kind", ["workflow", "step", "transaction"])
def test_what_gives_a_coroutine_is_marked_as_a_coroutine_function(kind: str) -> None:
    async def work(session: AsyncSession, number: int) -> int:
        return number

    decorated = getattr(AsyncDBOS(name="shop"), kind)(work)
    marked = inspect.iscoroutinefunction(decorated)
    assert marked or decorated._is_coroutine is vars(asyncio.coroutines)["_is_coroutine"]
    assert inspect.signature(decorated).return_annotation == "int"
    assert ("session" in inspect.signature(decorated).parameters) is (kind != "transaction")
