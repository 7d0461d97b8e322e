"""Transactional steps: the application's rows and the checkpoint in one commit, on Sessions of the user's kind."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from dbos_orm import DBOS
from dbos_orm.errors import NotInWorkflowError, SessionMisuseError, StartInStepError
from dbos_orm.models import StepOutput
from tests.databases import POSTGRESQL, TestDatabase
from tests.integration.shop import (
    Interruption,
    Item,
    OutOfStockError,
    count_of,
    names_of_items,
)
from tests.processes import PATIENCE


def test_rows_and_checkpoint_commit_together(dbos: DBOS, database: TestDatabase) -> None:
    seen: list[tuple[int, int]] = []

    @dbos.transaction
    def add(session: Session, name: str) -> int:
        session.add(item := Item(name=name))
        session.flush()
        seen.append((len(names_of_items(database)), count_of(database, StepOutput)))
        return item.id

    @dbos.workflow
    def work() -> int:
        return add("tea")

    number = work.options(workflow_id="w")()
    assert seen == [(0, 0)]
    assert names_of_items(database) == ["tea"]
    (step,) = dbos.handle("w").steps()
    assert (step.kind, step.output) == ("transaction", number)


def test_a_recorded_transaction_is_not_run_again(dbos: DBOS, database: TestDatabase) -> None:
    results: list[int] = []

    @dbos.transaction
    def add(session: Session, name: str) -> int:
        session.add(item := Item(name=name))
        session.flush()
        return item.id

    @dbos.workflow
    def work() -> None:
        results.append(add("tea"))
        if len(results) == 1:
            raise Interruption

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    dbos.handle("w").result(PATIENCE)
    assert results[0] == results[1]
    assert names_of_items(database) == ["tea"]


def test_an_interrupted_transaction_leaves_nothing_and_runs_again(dbos: DBOS, database: TestDatabase) -> None:
    calls: list[int] = []

    @dbos.transaction
    def add(session: Session) -> None:
        session.add(Item(name="tea"))
        session.flush()
        calls.append(count_of(database, Item))
        if len(calls) == 1:
            raise Interruption

    @dbos.workflow
    def work() -> None:
        add()

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    dbos.handle("w").result(PATIENCE)
    assert calls == [0, 0]
    assert names_of_items(database) == ["tea"]


def test_an_error_rolls_back_and_is_recorded(dbos: DBOS, database: TestDatabase) -> None:
    calls: list[int] = []

    @dbos.transaction
    def add(session: Session) -> None:
        calls.append(1)
        session.add(Item(name="tea"))
        session.flush()
        raise OutOfStockError("tea", left=1)

    @dbos.workflow
    def work() -> str:
        try:
            add()
        except OutOfStockError as error:
            if len(calls) == 1:
                calls.append(0)
                raise Interruption from error
            return f"only {error.left}"
        return "no error"

    with pytest.raises(Interruption):
        work.options(workflow_id="w")()
    assert dbos.handle("w").result(PATIENCE) == "only 1"
    assert calls == [1, 0]
    assert names_of_items(database) == []
    (step,) = dbos.handle("w").steps()
    assert isinstance(step.error, OutOfStockError)


def test_an_error_of_the_flush_rolls_back_and_comes_back_with_its_type(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.transaction
    def add(session: Session, *names: str) -> None:
        session.add_all(Item(name=name) for name in names)

    @dbos.workflow
    def work() -> str:
        add("tea")
        try:
            add("milk", "tea")
        except IntegrityError as error:
            return type(error).__name__
        return "no error"

    assert work() == "IntegrityError"
    assert names_of_items(database) == ["tea"]


class ItemKey:
    """A key that may not be known before the item is flushed."""

    def __init__(self, item: Item) -> None:
        self.item = item

    @property
    def number(self) -> int:
        return self.item.id

    @classmethod
    def of(cls, number: int) -> ItemKey:
        return cls(Item(id=number))


def test_generated_keys_are_in_the_result(dbos: DBOS, database: TestDatabase) -> None:
    dbos.types.register(ItemKey, encode=lambda key: key.number, decode=ItemKey.of)

    @dbos.transaction
    def add(session: Session, name: str) -> ItemKey:
        session.add(item := Item(name=name))
        return ItemKey(item)

    @dbos.workflow
    def work() -> int:
        return add("tea").number

    number = work.options(workflow_id="w")()
    assert count_of(database, Item, id=number) == 1
    (step,) = dbos.handle("w").steps()
    assert step.output.number == number


def test_commit_inside_a_transaction_is_refused(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.transaction
    def add(session: Session) -> None:
        session.add(Item(name="tea"))
        session.commit()

    @dbos.workflow
    def work() -> None:
        add()

    with pytest.raises(SessionMisuseError, match=r"use session\.begin_nested\(\) for a savepoint"):
        work()
    assert names_of_items(database) == []


def test_a_swallowed_refusal_to_commit_changes_nothing(dbos: DBOS, database: TestDatabase) -> None:
    seen: list[int] = []

    @dbos.transaction
    def add(session: Session) -> str:
        session.add(Item(name="tea"))
        try:
            session.commit()
        except SessionMisuseError:
            seen.append(count_of(database, Item))
        session.add(Item(name="milk"))
        return "done"

    @dbos.workflow
    def work() -> str:
        return add()

    assert work() == "done"
    assert seen == [0]
    assert names_of_items(database) == ["milk", "tea"]


def test_what_a_transaction_rolls_back_itself_is_not_part_of_it(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.transaction
    def add(session: Session) -> str:
        session.add(Item(name="tea"))
        session.flush()
        session.rollback()
        session.add(Item(name="milk"))
        return "done"

    @dbos.workflow
    def work() -> str:
        return add()

    assert work.options(workflow_id="w")() == "done"
    assert names_of_items(database) == ["milk"]
    assert [step.output for step in dbos.handle("w").steps()] == ["done"]


def test_a_savepoint_can_be_rolled_back(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.transaction
    def add(session: Session) -> list[str]:
        session.add(Item(name="tea"))
        session.flush()
        try:
            with session.begin_nested():
                session.add(Item(name="tea"))
        except IntegrityError:
            session.add(Item(name="milk"))
        with session.begin_nested():
            session.add(Item(name="sugar"))
        return sorted(session.scalars(select(Item.name)))

    @dbos.workflow
    def work() -> list[str]:
        return add()

    assert work() == ["milk", "sugar", "tea"]
    assert names_of_items(database) == ["milk", "sugar", "tea"]


def test_a_transaction_inside_a_transaction_joins_it(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.transaction
    def inner(session: Session, name: str) -> Session:
        session.add(Item(name=name))
        return session

    @dbos.transaction
    def outer(session: Session) -> bool:
        is_same = inner("tea") is session
        raise OutOfStockError("tea", left=int(is_same))

    @dbos.workflow
    def work() -> int:
        try:
            outer()
        except OutOfStockError as error:
            return error.left
        return -1

    assert work.options(workflow_id="w")() == 1
    assert names_of_items(database) == []
    assert len(dbos.handle("w").steps()) == 1


def test_a_transaction_outside_a_workflow_commits(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.transaction
    def add(session: Session, name: str, *, fail: bool = False) -> str:
        session.add(Item(name=name))
        if fail:
            raise OutOfStockError(name, left=0)
        return name

    assert add("tea") == "tea"
    with pytest.raises(OutOfStockError):
        add("milk", fail=True)
    assert names_of_items(database) == ["tea"]
    assert count_of(database, StepOutput) == 0


def test_within_uses_the_callers_session_and_leaves_its_end_to_the_caller(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.transaction
    def add(session: Session, name: str) -> Item:
        item = Item(name=name)
        session.add(item)
        return item

    with Session(database.make_engine()) as session:
        item = add.within(session, "tea")
        assert item in session.new
        assert names_of_items(database) == []
        session.commit()
    assert names_of_items(database) == ["tea"]


def test_within_needs_no_launch() -> None:
    dbos = DBOS(name="shop")

    @dbos.transaction
    def same(session: Session, other: Session) -> bool:
        return session is other

    session = Session()
    assert same.within(session, session)


def test_the_session_of_the_transaction_is_at_hand_deep_in_the_code(dbos: DBOS, database: TestDatabase) -> None:
    def repository_add(name: str) -> None:
        dbos.session.add(Item(name=name))

    @dbos.transaction
    def add(session: Session) -> bool:
        repository_add("tea")
        return dbos.session is session

    @dbos.workflow
    def work() -> bool:
        with pytest.raises(NotInWorkflowError, match=r"dbos\.session"):
            repository_add("milk")
        return add()

    assert work()
    with pytest.raises(NotInWorkflowError):
        repository_add("sugar")
    assert names_of_items(database) == ["tea"]


def test_a_static_method_can_be_a_transaction(dbos: DBOS, database: TestDatabase) -> None:
    class Stock:
        @staticmethod
        @dbos.transaction
        def add(session: Session, name: str) -> None:
            session.add(Item(name=name))

    Stock.add("tea")
    assert names_of_items(database) == ["tea"]


def test_a_transaction_inside_a_plain_step_is_part_of_that_step(dbos: DBOS, database: TestDatabase) -> None:
    @dbos.workflow
    def other() -> None: ...

    @dbos.transaction
    def add(session: Session) -> tuple[str | None, str]:
        session.add(Item(name="tea"))
        with pytest.raises(StartInStepError):
            other.start()
        return dbos.current.step_id, dbos.current.workflow_id

    @dbos.step
    def prepare() -> tuple[str | None, str]:
        return add()

    @dbos.workflow
    def work() -> tuple[str | None, str]:
        return prepare()

    assert work.options(workflow_id="w")() == ("1", "w")
    assert names_of_items(database) == ["tea"]
    assert [step.kind for step in dbos.handle("w").steps()] == ["step"]


def test_an_isolation_level_holds_for_this_transaction_only(dbos: DBOS, database: TestDatabase) -> None:
    if database.backend != POSTGRESQL:
        pytest.skip("SQLite's only level is SERIALIZABLE")

    def level(session: Session) -> str:
        return str(session.scalar(text("SHOW transaction_isolation")))

    strict = dbos.transaction(isolation_level="SERIALIZABLE", name="strict")(level)
    usual = dbos.transaction(name="usual")(level)

    @dbos.workflow
    def work() -> list[str]:
        return [usual(), strict(), usual()]

    assert work() == ["read committed", "serializable", "read committed"]
    assert (strict(), usual()) == ("serializable", "read committed")
