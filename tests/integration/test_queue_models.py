"""What is in a queue now, as expressions and attributes of the models."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, Select, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, selectinload, undefer_group
from sqlalchemy.sql import ClauseElement

from dbos_orm.models import Queue, QueuePartition, WorkflowStatus
from tests.databases import POSTGRESQL, TestDatabase

LONG_AGO = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def workflows(count: int, status: str, queue: str | None, **columns: object) -> list[WorkflowStatus]:
    application = str(columns.pop("application", "shop"))
    return [
        WorkflowStatus(
            workflow_id=f"{application}-{queue}-{status}-{columns.get('partition_key')}-{number}-{len(columns)}",
            application=application,
            name="checkout",
            status=status,
            queue=queue,
            **columns,
        )
        for number in range(count)
    ]


@pytest.fixture
def filled(database: TestDatabase) -> Iterator[Session]:
    """Mails: waiting 3, delayed 2, running 4, held 1; orders: partitioned; books: nothing; and what does not count."""
    with Session(database.make_engine()) as session:
        session.add_all([Queue(application="shop", name=name) for name in ("mails", "orders", "books")])
        session.add_all(
            [
                Queue(application="bank", name="mails", paused=True),
                *workflows(2, "ENQUEUED", "mails", enqueued_at=LONG_AGO + timedelta(hours=1)),
                *workflows(1, "ENQUEUED", "mails", enqueued_at=LONG_AGO, priority=7),
                *workflows(2, "DELAYED", "mails"),
                *workflows(1, "DELAYED", "mails", error='"unreadable"'),
                *workflows(4, "PENDING", "mails"),
                *workflows(1, "SUCCESS", "mails"),
                *workflows(5, "ENQUEUED", "mails", application="bank"),
                *workflows(2, "PENDING", None),
                *workflows(3, "ENQUEUED", "orders", partition_key="de", enqueued_at=datetime.now(UTC)),
                *workflows(1, "PENDING", "orders", partition_key="de", enqueued_at=LONG_AGO),
                *workflows(2, "PENDING", "orders", partition_key="at", enqueued_at=LONG_AGO),
                *workflows(2, "SUCCESS", "orders", partition_key="fr"),
            ]
        )
        session.commit()
        yield session


def test_an_object_tells_what_is_in_its_queue(filled: Session) -> None:
    mails = filled.get_one(Queue, ("shop", "mails"))

    assert (mails.depth, mails.delayed, mails.running, mails.held) == (3, 2, 4, 1)
    assert mails.lag is not None
    assert mails.lag >= datetime.now(UTC) - LONG_AGO - timedelta(minutes=5)


def test_an_empty_queue_has_no_lag(filled: Session) -> None:
    books = filled.get_one(Queue, ("shop", "books"))

    assert (books.depth, books.delayed, books.running, books.held, books.lag) == (0, 0, 0, 0, None)


def test_what_is_in_a_queue_is_kept_until_a_refresh(filled: Session) -> None:
    books = filled.get_one(Queue, ("shop", "books"))
    assert books.depth == 0
    filled.add_all(workflows(2, "ENQUEUED", "books"))
    filled.flush()

    assert books.depth == 0
    filled.refresh(books, ["depth"])
    assert books.depth == 2


def test_everything_is_selected_with_the_rows_if_it_is_asked_for(filled: Session) -> None:
    mine = select(Queue).where(Queue.application == "shop").order_by(Queue.name).options(undefer_group("now"))
    queues = filled.scalars(mine).all()
    filled.expunge_all()

    assert [(queue.name, queue.depth, queue.running) for queue in queues] == [
        ("books", 0, 0),
        ("mails", 3, 4),
        ("orders", 3, 3),
    ]


def test_a_row_alone_does_not_count(filled: Session) -> None:
    queue = filled.scalars(select(Queue).where(Queue.name == "books")).one()

    assert "depth" not in queue.__dict__


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        (
            select(Queue.name).where(Queue.depth > 2).order_by(Queue.depth.desc(), Queue.name),
            ["mails", "mails", "orders"],
        ),
        (select(Queue.name).where(Queue.lag > timedelta(minutes=5), Queue.application == "shop"), ["mails"]),
        (select(Queue.name).where(Queue.lag.is_(None)), ["books"]),
        (select(Queue.name).where(Queue.held > 0), ["mails"]),
        (select(Queue.name).where(Queue.delayed >= 2), ["mails"]),
        (select(Queue.name).where(Queue.application == "shop").order_by(Queue.running), ["books", "orders", "mails"]),
        (select(Queue.name).where(Queue.partitions.any(QueuePartition.running >= 2)), ["orders"]),
    ],
    ids=["depth", "lag", "no lag", "held", "delayed", "running", "partitions"],
)
def test_what_is_in_a_queue_is_usable_in_a_statement(filled: Session, statement: Select[str], names: list[str]) -> None:
    assert list(filled.scalars(statement)) == names


def test_the_depth_of_all_queues_is_a_sum(filled: Session) -> None:
    assert filled.scalar(select(func.sum(Queue.depth)).where(Queue.application == "shop")) == 6


def test_a_queue_tells_what_waits_and_runs_in_each_partition(filled: Session) -> None:
    orders = filled.get_one(Queue, ("shop", "orders"))

    assert [(one.partition_key, one.depth, one.running) for one in orders.partitions] == [("at", 0, 2), ("de", 3, 1)]
    at, de = orders.partitions
    assert at.lag is None
    assert de.lag is not None
    assert timedelta(0) <= de.lag < timedelta(minutes=5)
    assert repr(de) == "<QueuePartition 'de' of 'orders'>"
    assert filled.get_one(Queue, ("shop", "mails")).partitions == []


def test_partitions_are_loaded_with_their_queues_and_selected_by_themselves(filled: Session) -> None:
    queues = filled.scalars(select(Queue).options(selectinload(Queue.partitions)).order_by(Queue.name)).all()
    assert [len(queue.__dict__["partitions"]) for queue in queues] == [0, 0, 0, 2]

    busy = select(QueuePartition.partition_key).where(QueuePartition.depth > 0)
    assert list(filled.scalars(busy)) == ["de"]


async def test_partitions_and_counts_are_loaded_under_asyncio(filled: Session, database: TestDatabase) -> None:
    async with AsyncSession(database.make_async_engine()) as session:
        statement = select(Queue).where(Queue.name == "orders")
        options = undefer_group("now"), selectinload(Queue.partitions)
        orders = (await session.scalars(statement.options(*options))).one()
        assert (orders.depth, orders.running, [one.running for one in orders.partitions]) == (3, 3, [2, 1])
        assert isinstance(orders.lag, timedelta)


def test_a_workflow_knows_the_row_of_its_queue(filled: Session) -> None:
    paused = select(WorkflowStatus).where(WorkflowStatus.queue_row.has(Queue.paused))
    assert {row.application for row in filled.scalars(paused)} == {"bank"}
    row = filled.scalars(paused).first()
    assert row is not None
    assert row.queue_row is filled.get_one(Queue, ("bank", "mails"))


class TestWorkflows:
    def test_a_held_workflow_is_found(self, filled: Session) -> None:
        held = filled.scalars(select(WorkflowStatus).where(WorkflowStatus.is_held)).one()
        assert held.is_held
        assert held.error == '"unreadable"'

    def test_a_delayed_or_a_failed_one_is_not_held(self, filled: Session) -> None:
        for row in [*workflows(1, "DELAYED", "mails"), *workflows(1, "ERROR", "mails", error='"no"')]:
            assert not row.is_held

    def test_enqueued_and_delayed_ones_wait(self, filled: Session) -> None:
        statement = select(WorkflowStatus).where(WorkflowStatus.is_waiting, WorkflowStatus.application == "shop")
        rows = filled.scalars(statement).all()
        assert all(row.is_waiting for row in rows)
        assert {row.status for row in rows} == {"ENQUEUED", "DELAYED"}
        assert len(rows) == 9
        assert not workflows(1, "PENDING", "mails")[0].is_waiting

    def test_the_wait_is_from_the_queue_to_the_start(self, filled: Session) -> None:
        [row] = workflows(1, "SUCCESS", "waited", enqueued_at=LONG_AGO, started_at=LONG_AGO + timedelta(seconds=2.5))
        [handed_over] = workflows(
            1, "PENDING", "waited", enqueued_at=LONG_AGO + timedelta(hours=1), started_at=LONG_AGO
        )
        filled.add_all([row, handed_over, *workflows(1, "ENQUEUED", "waited", enqueued_at=LONG_AGO)])
        filled.flush()
        wait = select(WorkflowStatus.wait).where(WorkflowStatus.queue == "waited").order_by(WorkflowStatus.status)
        assert list(filled.scalars(wait)) == [None, None, timedelta(seconds=2.5)]
        assert handed_over.wait is None
        assert row.wait == timedelta(seconds=2.5)
        assert workflows(1, "ENQUEUED", "waited", enqueued_at=LONG_AGO)[0].wait is None


FILL = """
    INSERT INTO dbos_workflow_status (workflow_id, application, name, status, queue, enqueued_at)
    SELECT 'w-' || number, 'shop', 'work',
        CASE WHEN number > 100000 THEN 'ENQUEUED' ELSE 'SUCCESS' END, 'mails', now()
    FROM generate_series(1, 100100) AS series (number)
"""


def test_a_hundred_thousand_finished_workflows_are_not_read(database: TestDatabase) -> None:
    if database.backend != POSTGRESQL:
        pytest.skip("EXPLAIN of PostgreSQL")
    engine = database.make_engine().execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(FILL)
        connection.execute(insert(Queue), [{"application": "shop", "name": name} for name in ("mails", "books")])
        connection.exec_driver_sql("VACUUM ANALYZE dbos_workflow_status, dbos_queue")

    partitions = select(QueuePartition).where(QueuePartition.application == "shop", QueuePartition.queue == "mails")
    assert "status_claim" in explained(engine, select(Queue.depth).where(Queue.name == "mails"))
    assert "status_claim" in explained(engine, select(Queue.lag).where(Queue.name == "mails"))
    assert "status_claim" in explained(engine, select(Queue.name).where(Queue.depth > 5).order_by(Queue.lag))
    assert "status_running" in explained(engine, select(Queue.running).where(Queue.name == "mails"))
    assert "status_delayed" in explained(engine, select(Queue.held, Queue.delayed).where(Queue.name == "mails"))
    assert "status_running" in explained(engine, partitions)


def explained(engine: Engine, statement: ClauseElement) -> str:
    """The plan, which reads no status rows but those of an index."""
    text = str(statement.compile(engine, compile_kwargs={"literal_binds": True}))
    with engine.connect() as connection:
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {text}").scalars())
    assert "Seq Scan on dbos_workflow_status" not in plan
    return plan
