"""Classes with methods of every kind."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from dbos_orm import DBOS, WorkflowStatus
from tests.integration.shop import Interruption, Item


class Shops:
    """Classes with methods of every kind, made for one application as its module would make them."""

    def __init__(self, dbos: DBOS) -> None:
        self.fails = False
        outer = self

        @dataclass(slots=True)
        class Shop:
            region: str
            prices: dict[str, int]

            @dbos.step(name="Shop.price")
            def price(self, item: str) -> int:
                return self.prices[item]

            @dbos.transaction(name="Shop.store")
            def store(self, session: Session, item: str, *, times: int = 1) -> int:
                session.add_all([Item(name=f"{item} {self.region} {number}") for number in range(times)])
                return times

            @dbos.workflow(name="Shop.order")
            def order(self, item: str, times: int = 1) -> str:
                price = self.price(item)
                if outer.fails:
                    raise Interruption
                self.store(item, times=times)
                return f"{self.region}: {times * price}"

            @dbos.workflow(name="Shop.order_both")
            def order_both(self, first: str, second: str) -> tuple[str, str]:
                later = self.order.start(first)
                return self.order(second), later.result()

            @staticmethod
            @dbos.workflow(name="Shop.greet")
            def greet(name: str) -> str:
                return f"hello {name}"

        class Discounter(Shop):
            @dbos.workflow(name="Discounter.order")
            def order(self, item: str, times: int = 1) -> str:
                return "cheap " + super().order(item, times)

        self.Shop = Shop
        self.Discounter = Discounter


PRICES = {"tea": 3, "milk": 2}


def row_of(dbos: DBOS, workflow_id: str) -> WorkflowStatus:
    with Session(dbos._runtime.bound("test").engine) as session:
        return session.get_one(WorkflowStatus, workflow_id)
