"""An order is reserved and charged: two steps that finish once they are begun, whatever happens to the process.

    python -m examples.quickstart

``reserve`` is a transaction: the order's new status and the record that this step is done are one commit.
``charge`` calls another system, so it may run more than once if the process dies in the midst of it; the key that it
sends along is the same each time. ``checkout`` is the workflow. It is started in the background here, and waited for.

Kill the process while a checkout runs, and run the program again: its launch finishes that checkout too.
"""

from __future__ import annotations

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from dbos_orm import DBOS, Retry, WorkflowStatus, sqlite_engine

engine = sqlite_engine("sqlite:///shop.db")
dbos = DBOS(engine, name="shop")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    order_id: Mapped[int] = mapped_column(primary_key=True)
    total_cents: Mapped[int]
    status: Mapped[str] = mapped_column(default="new")
    checkout_id: Mapped[str | None] = mapped_column(ForeignKey(WorkflowStatus.workflow_id))
    checkout: Mapped[WorkflowStatus | None] = relationship(WorkflowStatus)


@dbos.transaction
def reserve(session: Session, order_id: int) -> int:
    order = session.get_one(Order, order_id)
    order.status = "reserved"
    order.checkout_id = dbos.current.workflow_id
    return order.total_cents


class PaymentsAreDownError(Exception):
    pass


@dbos.step(retry=Retry(max_attempts=5, backoff=0.1, retry_if=(PaymentsAreDownError,)))
def charge(order_id: int, total_cents: int) -> str:
    """Stands for a call of a payment service. It is down the first time."""
    if dbos.current.attempt == 1:
        raise PaymentsAreDownError(f"cannot charge {total_cents} for {dbos.current.idempotency_key}")
    return f"receipt-{order_id}"


@dbos.workflow
def checkout(order_id: int) -> str:
    total_cents = reserve(order_id)
    receipt = charge(order_id, total_cents)
    return f"paid {total_cents}, {receipt}"


def main() -> None:
    with dbos.launch(migrate=True):
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add(order := Order(total_cents=4500))
            session.flush()
            order_id = order.order_id

        handle = checkout.options(workflow_id=f"checkout-{order_id}").start(order_id)
        print(f"order {order_id}: {handle.result()}")

        # What happened is in the tables, beside the order.
        with Session(engine) as session:
            finished = select(Order).join(Order.checkout).where(Order.order_id == order_id)
            order = session.scalars(finished.where(WorkflowStatus.is_terminal)).one()
            assert order.status == "reserved"
        for step in handle.steps():
            print(f"{step.name}: {step.output!r}")


if __name__ == "__main__":
    main()
