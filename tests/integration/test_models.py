"""What the models store and give back, on every database and driver."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    cast,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
)

from dbos_orm.models import (
    Executor,
    Notification,
    Payload,
    StepAttempt,
    StepOutput,
    WorkflowEvent,
    WorkflowState,
    WorkflowStatus,
)
from tests.databases import TestDatabase

# Spaces, order of keys, a number beyond 64 bits, NUL and half a surrogate pair: all must stay.
AWKWARD_JSON = '{"total": 5,  "a": 1e22, "A": 1.0, "nul": "\\u0000", "half": "\\ud800", "é": null}'
KATHMANDU = timezone(timedelta(hours=5, minutes=45))
NOON = datetime(2026, 11, 22, 12, 0, 0, 7, tzinfo=KATHMANDU)


def workflow(workflow_id: str = "order-17", **columns: object) -> WorkflowStatus:
    return WorkflowStatus(workflow_id=workflow_id, application="shop", name="checkout", **columns)


def step(step_id: int, **columns: object) -> StepOutput:
    return StepOutput(workflow_id="order-17", step_id=step_id, name="charge", owner_token="t", write_id=1, **columns)


class TestTypes:
    def test_a_payload_comes_back_as_the_very_same_text(self, database: TestDatabase) -> None:
        with Session(database.make_engine()) as session:
            session.add(workflow(input="1e22", output=AWKWARD_JSON, error='"5"'))
            session.commit()
            row = session.get_one(WorkflowStatus, "order-17")
            assert (row.input, row.output, row.error) == ("1e22", AWKWARD_JSON, '"5"')

    async def test_a_payload_comes_back_as_the_same_text_under_asyncio(self, database: TestDatabase) -> None:
        async with database.make_async_engine().begin() as connection:
            written = await connection.execute(
                insert(StepOutput).returning(StepOutput.output),
                {"workflow_id": "w", "step_id": 1, "name": "n", "owner_token": "t", "write_id": 2**62}
                | {"output": AWKWARD_JSON},
            )
            assert written.scalar_one() == AWKWARD_JSON
            assert (await connection.scalars(select(StepOutput.output))).one() == AWKWARD_JSON

    def test_a_payload_is_returned_as_text_by_writes_too(self, database: TestDatabase) -> None:
        with database.make_engine().begin() as connection:
            base = {"application": "shop", "name": "checkout"}
            inserted = connection.execute(
                insert(WorkflowStatus).values(workflow_id="a", input="[1,  2]", **base).returning(WorkflowStatus.input)
            )
            assert inserted.scalar_one() == "[1,  2]"
            updated = connection.execute(update(WorkflowStatus).values(output='"5"').returning(WorkflowStatus.output))
            assert updated.scalar_one() == '"5"'
            copy = select(text("'b'"), WorkflowStatus.application, WorkflowStatus.name, WorkflowStatus.input)
            copied = connection.execute(
                insert(WorkflowStatus)
                .from_select(["workflow_id", "application", "name", "input"], copy)
                .returning(WorkflowStatus.input)
            )
            assert copied.scalar_one() == "[1,  2]"

    def test_text_of_unknown_type_is_cast_to_a_payload(self, database: TestDatabase) -> None:
        with database.make_engine().begin() as connection:
            source = select(text("'a'"), text("'shop'"), text("'checkout'"), cast("1e22", Payload))
            connection.execute(
                insert(WorkflowStatus).from_select(["workflow_id", "application", "name", "input"], source)
            )
            assert connection.scalar(select(WorkflowStatus.input)) == "1e22"

    def test_none_is_null_and_not_the_json_of_none(self, database: TestDatabase) -> None:
        with Session(database.make_engine()) as session:
            session.add_all([workflow("a", output=None, attributes=None), workflow("b", output="null")])
            session.commit()
            nothing = WorkflowStatus.output.is_(None)
            assert session.scalars(select(WorkflowStatus.workflow_id).where(nothing)).all() == ["a"]
            no_attributes = WorkflowStatus.attributes.is_(None)
            assert len(session.scalars(select(WorkflowStatus).where(no_attributes)).all()) == 2

    def test_a_payload_is_queried_by_its_parts(self, database: TestDatabase) -> None:
        with Session(database.make_engine()) as session:
            session.add_all([workflow("a", output='{"total": 5, "z": 1e22}'), workflow("b", output='{"total": 6}')])
            session.commit()
            total = WorkflowStatus.output["total"].as_integer()
            found = select(WorkflowStatus.workflow_id).where(total > 5)
            assert session.scalars(found).all() == ["b"]
            assert session.scalars(select(total).order_by(total)).all() == [5, 6]

    def test_a_payload_that_is_no_json_is_refused_by_postgresql(self, postgresql_database: TestDatabase) -> None:
        with (
            postgresql_database.make_engine().begin() as connection,
            pytest.raises(Exception, match="invalid input syntax for type json"),
        ):
            connection.execute(
                insert(StepOutput).values(workflow_id="a", step_id=1, name="n", owner_token="t", write_id=1, output="{")
            )

    def test_an_instant_comes_back_equal_and_in_utc(self, database: TestDatabase) -> None:
        with Session(database.make_engine()) as session:
            session.add(workflow(deadline=NOON))
            session.commit()
            deadline = session.get_one(WorkflowStatus, "order-17").deadline
            assert deadline == NOON
            assert deadline is not None
            assert deadline.tzinfo is UTC

    def test_instants_compare_as_they_follow_in_time(self, database: TestDatabase) -> None:
        instants = {
            "c": NOON,
            "b": NOON.astimezone(UTC) - timedelta(microseconds=1),
            "d": NOON.replace(tzinfo=UTC),
            "a": NOON - timedelta(days=400),
        }
        with Session(database.make_engine()) as session:
            session.add_all([workflow(key, deadline=instant) for key, instant in instants.items()])
            session.commit()
            in_order = select(WorkflowStatus.workflow_id).order_by(WorkflowStatus.deadline)
            assert session.scalars(in_order).all() == ["a", "b", "c", "d"]
            due = in_order.where(WorkflowStatus.deadline <= NOON)
            assert session.scalars(due).all() == ["a", "b", "c"]

    def test_an_instant_on_sqlite_is_text_of_fixed_width(self, sqlite_database: TestDatabase) -> None:
        with sqlite_database.make_engine().begin() as connection:
            values = {"workflow_id": "a", "application": "shop", "name": "checkout"}
            connection.execute(insert(WorkflowStatus), values | {"deadline": NOON.replace(microsecond=0)})
            deadline, created = connection.execute(text("SELECT deadline, created_at FROM dbos_workflow_status")).one()
            assert deadline == "2026-11-22T06:15:00.000000+00:00"
            assert len(created) == len(deadline)

    def test_a_naive_datetime_is_refused_with_advice(self, database: TestDatabase) -> None:
        naive = NOON.replace(tzinfo=None)
        with Session(database.make_engine()) as session:
            session.add(workflow(deadline=naive))
            with pytest.raises(StatementError, match=r"naive datetime.*datetime\.now\(UTC\)"):
                session.flush()

    @pytest.mark.parametrize(
        "timeout", [timedelta(0), timedelta(microseconds=1), timedelta(days=40_000, microseconds=-1)]
    )
    def test_a_duration_keeps_its_microseconds(self, database: TestDatabase, timeout: timedelta) -> None:
        with Session(database.make_engine()) as session:
            session.add(workflow(timeout=timeout))
            session.commit()
            assert session.get_one(WorkflowStatus, "order-17").timeout == timeout

    def test_attributes_are_objects_and_are_filtered_by(self, database: TestDatabase) -> None:
        with Session(database.make_engine()) as session:
            session.add(workflow("a", attributes={"region": "eu", "weights": [1, 2.5]}, roles=["clerk"]))
            session.add(workflow("b", attributes={"region": "us"}))
            session.commit()
            region = WorkflowStatus.attributes["region"].as_string()
            found = session.scalars(select(WorkflowStatus).where(region == "eu")).one()
            assert found.attributes == {"region": "eu", "weights": [1, 2.5]}
            assert found.roles == ["clerk"]


class TestDefaults:
    def test_an_insert_by_hand_makes_a_good_row(self, database: TestDatabase) -> None:
        engine = database.make_engine()
        with engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO dbos_workflow_status (workflow_id, application, name) "
                    "VALUES ('a', 'shop', 'checkout'), ('b', 'shop', 'checkout')"
                )
            )
        with Session(engine) as session:
            first, second = session.scalars(select(WorkflowStatus).order_by(WorkflowStatus.workflow_id))
            assert first.state is WorkflowState.ENQUEUED
            assert (first.priority, first.recovery_attempts, first.version_pinned) == (0, 0, False)
            assert first.generation != second.generation
            assert abs(first.created_at - datetime.now(UTC)) < timedelta(minutes=1)

    def test_a_sequence_made_by_the_database_is_a_uuid_of_version_7(self, database: TestDatabase) -> None:
        with Session(database.make_engine()) as session:
            session.add_all([workflow(str(n)) for n in range(20)])
            session.commit()
            rows = session.execute(select(WorkflowStatus.sequence, WorkflowStatus.created_at)).all()
        assert len({sequence for sequence, _ in rows}) == 20
        for sequence, created_at in rows:
            high, middle, version, variant, low = sequence.split("-")
            assert [len(part) for part in (high, middle, version, variant, low)] == [8, 4, 4, 4, 12]
            assert (version[0], variant[0] in "89ab") == ("7", True)
            milliseconds = int(high + middle, 16)
            assert abs(milliseconds - created_at.timestamp() * 1000) < 1000

    def test_an_unknown_status_is_refused(self, database: TestDatabase) -> None:
        with Session(database.make_engine()) as session:
            session.add(workflow(status="SLEEPING"))
            with pytest.raises(IntegrityError, match="ck_dbos_workflow_status_status"):
                session.flush()

    @pytest.mark.parametrize("status", list(WorkflowState))
    def test_every_state_is_accepted(self, database: TestDatabase, status: WorkflowState) -> None:
        with Session(database.make_engine()) as session:
            session.add(workflow(status=status))
            session.commit()
            assert session.get_one(WorkflowStatus, "order-17").status == status

    def test_a_deduplication_id_is_free_again_after_the_end(self, database: TestDatabase) -> None:
        deduplicated = {"queue": "orders", "deduplication_id": "17"}
        with Session(database.make_engine()) as session:
            session.add(workflow("a", status="SUCCESS", **deduplicated))
            session.add(workflow("b", status="PENDING", **deduplicated))
            session.commit()
            session.add(workflow("c", status="DELAYED", **deduplicated))
            with pytest.raises(IntegrityError):
                session.flush()

    def test_order_of_sequences_does_not_depend_on_the_locale(self, postgresql_database: TestDatabase) -> None:
        with postgresql_database.make_engine().connect() as connection:
            collation = connection.scalar(
                text(
                    "SELECT collation_name FROM information_schema.columns "
                    "WHERE table_name = 'dbos_workflow_status' AND column_name = 'sequence'"
                )
            )
            assert collation == "C"


class TestQueries:
    def test_relationships_lead_from_a_workflow_to_all_that_it_has(self, database: TestDatabase) -> None:
        with Session(database.make_engine()) as session:
            session.add_all([workflow(), workflow("order-17-2", parent_id="order-17", parent_step="2")])
            session.add_all([step(2, child_id="order-17-2"), step(1), step(1, scope="3")])
            session.add(
                StepAttempt(workflow_id="order-17", step_id=1, attempt=1, name="charge", owner_token="t", write_id=1)
            )
            session.add(Notification(workflow_id="order-17", message_id="m", message="5"))
            session.add(WorkflowEvent(workflow_id="order-17", key="receipt", value='"r"'))
            session.commit()
            loaded = select(WorkflowStatus).options(
                selectinload(WorkflowStatus.steps), selectinload(WorkflowStatus.children)
            )
            parent, child = session.scalars(loaded.order_by(WorkflowStatus.workflow_id))
            assert [step.path for step in parent.steps] == ["1", "2", "3.1"]
            assert parent.children == [child]
            assert child.parent is parent
            assert child.children == []
            assert parent.steps[0].workflow is parent
            assert parent.steps[1].child is child
            assert [attempt.attempt for attempt in parent.steps[0].failed_attempts] == [1]
            assert parent.steps[2].failed_attempts == []
            assert [message.message for message in parent.messages] == ["5"]
            assert [event.value for event in parent.events] == ['"r"']

    def test_hybrid_properties_mean_the_same_in_a_statement(self, database: TestDatabase) -> None:
        durations = {
            "a": timedelta(seconds=1, microseconds=7),
            "b": timedelta(microseconds=999_999),
            "c": timedelta(days=400, seconds=5),
        }
        with Session(database.make_engine()) as session:
            for key, duration in durations.items():
                ended = NOON + duration
                session.add(workflow(key, status="SUCCESS", started_at=NOON, completed_at=ended))
            session.add(workflow("d", status="PENDING", started_at=NOON))
            session.commit()
            live = select(WorkflowStatus.workflow_id).where(WorkflowStatus.is_live)
            assert session.scalars(live).all() == ["d"]
            shortest = (
                select(WorkflowStatus)
                .where(WorkflowStatus.is_terminal, WorkflowStatus.duration < timedelta(days=1))
                .order_by(WorkflowStatus.duration)
            )
            assert [row.workflow_id for row in session.scalars(shortest)] == ["b", "a"]
            measured = session.execute(select(WorkflowStatus.workflow_id, WorkflowStatus.duration))
            assert {row.workflow_id: row.duration for row in measured} == {**durations, "d": None}

    def test_a_model_of_the_user_refers_to_a_workflow(self, database: TestDatabase) -> None:
        class UserBase(DeclarativeBase):
            pass

        class Order(UserBase):
            __tablename__ = "orders"
            order_id: Mapped[int] = mapped_column(primary_key=True)
            fulfilment_id: Mapped[str | None] = mapped_column(ForeignKey(WorkflowStatus.workflow_id))
            fulfilment: Mapped[WorkflowStatus | None] = relationship(WorkflowStatus)

        engine = database.make_engine()
        UserBase.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Order(order_id=1, fulfilment=workflow()))
            session.commit()
            running = select(Order).join(Order.fulfilment).where(WorkflowStatus.is_live)
            assert session.scalars(running).one().fulfilment_id == "order-17"
            session.add(Order(order_id=2, fulfilment_id="missing"))
            with pytest.raises(IntegrityError):
                session.flush()

    def test_a_table_of_the_user_refers_by_name_with_our_metadata_copied(self, database: TestDatabase) -> None:
        user_metadata = MetaData()
        WorkflowStatus.metadata.tables["dbos_workflow_status"].to_metadata(user_metadata)
        orders = Table(
            "orders",
            user_metadata,
            Column("order_id", Integer, primary_key=True),
            Column("fulfilment_id", ForeignKey("dbos_workflow_status.workflow_id")),
        )
        engine = database.make_engine()
        orders.create(engine)
        with engine.begin() as connection, pytest.raises(IntegrityError):
            connection.execute(insert(orders), {"order_id": 1, "fulfilment_id": "missing"})

    def test_an_executor_is_stored_with_its_lease(self, database: TestDatabase) -> None:
        with Session(database.make_engine()) as session:
            session.add(Executor(executor_id="e", application="shop", lease=timedelta(seconds=30), pid=1))
            session.commit()
            row = session.get_one(Executor, "e")
            assert (row.lease, row.heartbeat, row.expired_at) == (timedelta(seconds=30), 0, None)


def test_the_claim_is_planned_on_its_index(postgresql_database: TestDatabase) -> None:
    with postgresql_database.make_engine().begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        claim = (
            "EXPLAIN (FORMAT JSON) SELECT workflow_id FROM dbos_workflow_status "
            "WHERE application = 'shop' AND queue = 'orders' AND name = 'checkout' AND version = '1' "
            "AND status = 'ENQUEUED' ORDER BY priority, sequence LIMIT 10 FOR UPDATE SKIP LOCKED"
        )
        plan = json.dumps(connection.scalar(text(claim)))
    assert "ix_dbos_workflow_status_claim" in plan
    assert '"Sort' not in plan
