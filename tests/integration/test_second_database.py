"""Transactional steps on another database than the workflow's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from dbos_orm import DBOS
from dbos_orm.errors import NonDeterministicError
from dbos_orm.models import StepOutput, TransactionOutput, WorkflowStatus
from tests.databases import POSTGRESQL, TestDatabase
from tests.integration.pairs import Pair, forget_history
from tests.integration.shop import (
    Base,
    Interruption,
    Item,
    OutOfStockError,
    count_of,
    launched,
    names_of_items,
)
from tests.processes import PATIENCE


@pytest.fixture
def dbos(pair: Pair) -> Iterator[DBOS]:
    with launched(pair.main) as application:
        yield application


def test_rows_and_checkpoint_commit_together_in_the_other_database(dbos: DBOS, pair: Pair) -> None:
    @dbos.transaction(sessionmaker=pair.maker())
    def add(session: Session, name: str) -> int:
        session.add(item := Item(name=name))
        session.flush()
        assert names_of_items(pair.other) == []
        return item.id

    @dbos.workflow
    def work() -> int:
        return add("tea")

    number = work.options(workflow_id="w")()
    assert (names_of_items(pair.other), names_of_items(pair.main)) == (["tea"], [])
    (output,) = pair.outputs()
    generation = generation_of(pair.main, "w")
    assert (output.workflow_id, output.generation, output.scope, output.step_id) == ("w", generation, "", 1)
    assert (output.name, output.output, output.error) == (add.name, str(number), None)
    (step,) = dbos.handle("w").steps()
    assert (step.name, step.kind, step.output) == (add.name, "transaction", number)


def generation_of(database: TestDatabase, workflow_id: str) -> str:
    with Session(database.make_engine()) as session:
        return session.get_one(WorkflowStatus, workflow_id).generation


def test_steps_on_two_databases_take_turns_in_one_workflow(dbos: DBOS, pair: Pair) -> None:
    other = dbos.transaction(sessionmaker=pair.maker(), name="other")(add_item)
    main = dbos.transaction(name="main")(add_item)

    @dbos.workflow
    def work() -> list[str]:
        return [other("a"), main("b"), other("c"), main("d")]

    handles = [work.start() for _ in range(1)]
    assert [handle.result(PATIENCE) for handle in handles] == [["a", "b", "c", "d"]]
    assert (names_of_items(pair.other), names_of_items(pair.main)) == (["a", "c"], ["b", "d"])


def add_item(session: Session, name: str) -> str:
    session.add(Item(name=name))
    return name


def test_a_recorded_step_is_not_run_again(dbos: DBOS, pair: Pair) -> None:
    results = []

    @dbos.transaction(sessionmaker=pair.maker())
    def add(session: Session) -> int:
        session.add(item := Item(name="tea"))
        session.flush()
        return item.id

    @dbos.workflow
    def work() -> None:
        results.append(add())
        if len(results) == 1:
            raise Interruption

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    dbos.handle("w").result(PATIENCE)
    assert results[0] == results[1]
    assert names_of_items(pair.other) == ["tea"]


def test_what_was_committed_there_and_not_recorded_here_is_adopted(dbos: DBOS, pair: Pair) -> None:
    calls = []

    @dbos.transaction(sessionmaker=pair.maker())
    def add(session: Session) -> list[int]:
        calls.append(1)
        session.add(item := Item(name="tea"))
        session.flush()
        return [item.id]

    @dbos.workflow
    def work() -> list[int]:
        found = add()
        if len(calls) == 1:
            calls.append(0)
            forget_history(pair.main)
            raise Interruption
        return found

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    (output,) = pair.outputs()
    found = dbos.handle("w").result(PATIENCE)
    assert json.dumps(found) == output.output
    assert calls == [1, 0]
    assert names_of_items(pair.other) == ["tea"]
    (step,) = dbos.handle("w").steps()
    assert (step.kind, step.output) == ("transaction", found)


def test_another_step_found_there_is_non_deterministic(dbos: DBOS, pair: Pair) -> None:
    calls = []
    maker = pair.maker()
    one = dbos.transaction(sessionmaker=maker, name="one")(add_item)
    two = dbos.transaction(sessionmaker=maker, name="two")(add_item)

    @dbos.workflow
    def work() -> None:
        calls.append(1)
        if len(calls) == 1:
            one("tea")
            forget_history(pair.main)
            raise Interruption
        two("milk")

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    with pytest.raises(NonDeterministicError) as caught:
        dbos.handle("w").result(PATIENCE)
    assert (caught.value.step, caught.value.recorded, caught.value.called) == ("1", "one", "two")
    assert names_of_items(pair.other) == ["tea"]


def test_rows_of_another_generation_are_not_found(dbos: DBOS, pair: Pair) -> None:
    calls = []

    @dbos.transaction(sessionmaker=pair.maker())
    def add(session: Session) -> str:
        calls.append(1)
        return add_item(session, f"tea {len(calls)}")

    @dbos.workflow
    def work() -> str:
        found = add()
        if len(calls) == 1:
            forget_history(pair.main)
            with Session(pair.other.make_engine()) as session, session.begin():
                session.execute(update(TransactionOutput).values(generation="an earlier one"))
            raise Interruption
        return found

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    assert dbos.handle("w").result(PATIENCE) == "tea 2"
    assert len(pair.outputs()) == 2


def test_a_row_in_the_way_rolls_back_and_is_adopted(dbos: DBOS, pair: Pair) -> None:
    """Somebody who owned the run before commits while this process is in the function."""
    if pair.other.backend != POSTGRESQL:
        pytest.skip("nobody can commit beside the one writer")

    @dbos.transaction(sessionmaker=pair.maker())
    def add(session: Session, name: str) -> str:
        add_item(session, name)
        theirs = TransactionOutput(
            workflow_id="w",
            generation=generation_of(pair.main, "w"),
            scope="",
            step_id=1,
            name=add.name,
            output='"theirs"',
            owner_token="another",
            write_id=1,
        )
        with Session(pair.other.make_engine()) as another, another.begin():
            another.add(theirs)
        return "ours"

    @dbos.workflow
    def work() -> str:
        return add("tea")

    assert work.options(workflow_id="w")() == "theirs"
    assert names_of_items(pair.other) == []
    (step,) = dbos.handle("w").steps()
    assert step.output == "theirs"


def test_an_error_rolls_back_and_is_recorded_here(dbos: DBOS, pair: Pair) -> None:
    @dbos.transaction(sessionmaker=pair.maker())
    def add(session: Session) -> None:
        add_item(session, "tea")
        session.flush()
        raise OutOfStockError("tea", left=1)

    @dbos.workflow
    def work() -> int:
        try:
            add()
        except OutOfStockError as error:
            return error.left
        return -1

    assert work.options(workflow_id="w")() == 1
    assert names_of_items(pair.other) == []
    assert pair.outputs() == []
    (step,) = dbos.handle("w").steps()
    assert isinstance(step.error, OutOfStockError)


def test_an_error_of_a_continued_run_takes_the_key_there(dbos: DBOS, pair: Pair) -> None:
    """Whoever owned it before, and was only stopped, cannot commit any more."""
    calls = []

    @dbos.transaction(sessionmaker=pair.maker())
    def add(session: Session) -> None:
        raise OutOfStockError("tea", left=1)

    @dbos.workflow
    def work() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise Interruption
        try:
            add()
        except OutOfStockError as error:
            return error.left
        return -1

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    assert dbos.handle("w").result(PATIENCE) == 1
    (output,) = pair.outputs()
    assert (output.output, output.error is None) == (None, False)


def test_outside_a_workflow_it_is_a_transaction_there(dbos: DBOS, pair: Pair) -> None:
    @dbos.transaction(sessionmaker=pair.maker())
    def add(session: Session, name: str, *, fail: bool = False) -> str:
        add_item(session, name)
        assert dbos.session is session
        if fail:
            raise OutOfStockError(name, left=0)
        return name

    assert add("tea") == "tea"
    with pytest.raises(OutOfStockError):
        add("milk", fail=True)
    assert names_of_items(pair.other) == ["tea"]
    assert pair.outputs() == []


def test_a_maker_may_be_configured_after_the_decorator(dbos: DBOS, pair: Pair) -> None:
    reports = sessionmaker[Session]()
    add = dbos.transaction(sessionmaker=reports)(add_item)

    @dbos.workflow
    def work(name: str) -> str:
        return add(name)

    reports.configure(bind=pair.other.make_engine())
    assert work("tea") == "tea"
    assert names_of_items(pair.other) == ["tea"]
    reports.configure(bind=pair.main.make_engine())
    assert work("milk") == "milk"
    assert names_of_items(pair.main) == ["milk"]


def test_another_maker_of_the_workflows_database_is_an_ordinary_transaction(dbos: DBOS, pair: Pair) -> None:
    class OwnSession(Session):
        """A class of the user's own."""

    engine = dbos._runtime.bound("test").engine
    same = dbos.transaction(sessionmaker=sessionmaker(engine, class_=OwnSession), name="same")
    again = dbos.transaction(sessionmaker=sessionmaker(pair.main.make_engine(), class_=OwnSession), name="again")

    def kind(session: Session, name: str) -> str:
        add_item(session, name)
        return type(session).__name__

    one, two = same(kind), again(kind)

    @dbos.transaction
    def outer(session: Session) -> list[str]:
        return [one("c"), two("d")]

    @dbos.workflow
    def work() -> list[str]:
        return [one("a"), two("b"), *outer()]

    assert work.options(workflow_id="w")() == ["OwnSession", "OwnSession", "Session", "Session"]
    assert names_of_items(pair.main) == ["a", "b", "c", "d"]
    assert count_of(pair.main, StepOutput) == 3


def test_many_workflows_at_once_do_not_block_each_other(dbos: DBOS, pair: Pair) -> None:
    other = dbos.transaction(sessionmaker=pair.maker(), name="other")(add_item)
    main = dbos.transaction(name="main")(add_item)

    @dbos.workflow
    def work(number: int) -> None:
        if number % 2:
            other(f"{number} first")
        main(f"{number}")
        other(f"{number} last")

    handles = [work.start(number) for number in range(16)]
    for handle in handles:
        handle.result(PATIENCE)
    assert len(names_of_items(pair.other)) == 24
    assert len(names_of_items(pair.main)) == 16


def test_a_cancel_reaches_a_step_before_its_commit_there(dbos: DBOS, pair: Pair) -> None:
    entered, go_on = threading.Event(), threading.Event()

    @dbos.transaction(sessionmaker=pair.maker())
    def add(session: Session) -> None:
        add_item(session, "tea")
        entered.set()
        assert go_on.wait(PATIENCE)

    @dbos.workflow
    def work() -> None:
        add()

    handle = work.start()
    assert entered.wait(PATIENCE)
    run = dbos._runtime.bound("test").runs.get(handle.workflow_id)
    assert run is not None
    handle.cancel()
    while run.stop is None:
        pass
    go_on.set()
    dbos._runtime.bound("test").runs.wait_until_none(PATIENCE)
    assert names_of_items(pair.other) == []


def test_an_inline_launch_uses_its_connection_for_every_maker_of_its_database(pair: Pair) -> None:
    engine = pair.main.make_engine()
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        rolled_back = connection.begin()
        with DBOS(name="shop").launch(connection, inline=True) as dbos:
            # Of the same engine: another one could not even connect beside the open transaction of SQLite.
            here = dbos.transaction(sessionmaker=sessionmaker(engine), name="here")(add_item)
            there = dbos.transaction(sessionmaker=pair.maker(), name="there", statement_timeout=60)(add_item)

            @dbos.workflow
            def work() -> list[str]:
                return [here("a"), there("b")]

            assert work() == ["a", "b"]
            assert names_of_items(pair.other) == ["b"]
        rolled_back.rollback()
    assert names_of_items(pair.main) == []
