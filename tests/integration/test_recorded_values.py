"""Values and errors that went through the database: equal, and of the same type, in every way to get them."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any

import pytest

from dbos_orm import DBOS
from dbos_orm.errors import RemoteError, SerializationError
from tests.integration.shop import Colour, Interruption, Item, Line, Money, OutOfStockError
from tests.processes import PATIENCE

VALUES: dict[str, Any] = {
    "nul": "a\x00b\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "lone surrogate": "\ud800",
    "large float": 1e22,
    "large integer": 2**100,
    "infinity": -math.inf,
    "negative zero": -0.0,
    "tuple": (1, (2, [3, ()])),
    "keys of all kinds": {1: "a", (2, 3): "b", None: "c"},
    "order of keys": {"b": 1, "a": 2},
    "sets": [{1, 2}, frozenset("ab")],
    "bytes": b"\x00\xff",
    "decimal": Decimal("1.10"),
    "uuid": uuid.UUID(int=7),
    "times": [
        datetime(2026, 3, 1, 2, 30, 0, 5, tzinfo=UTC),
        datetime(2026, 3, 1),  # noqa: DTZ001
        date(2026, 3, 1),
        time_of_day(2, 30),
        timedelta(days=-1, microseconds=1),
    ],
    "dataclass": Money(5, "EUR"),
    "named tuple": Line("tea", Money(5, "EUR")),
    "enum": [Colour.RED, Colour.GREEN],
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_keep_their_type_through_the_database(dbos: DBOS, kind: str) -> None:
    for known in (Money, Line, Colour):
        dbos.types.register(known)
    seen: list[Any] = []

    @dbos.step
    def echo(value: Any) -> Any:
        return value

    @dbos.workflow
    def work(value: Any) -> Any:
        seen.append(value)
        seen.append(echo(value))
        if len(seen) == 2:
            raise Interruption
        return value

    value = VALUES[kind]
    with pytest.raises(Interruption):
        work.options(workflow_id="w")(value)
    seen.append(dbos.handle("w").result(PATIENCE))
    assert len(seen) == 5
    assert [repr(each) for each in seen] == [repr(value)] * 5
    assert all(each == value for each in seen)


def test_not_a_number_comes_back(dbos: DBOS) -> None:
    @dbos.workflow
    def work(value: float) -> float:
        return value

    assert math.isnan(work.options(workflow_id="w")(math.nan))
    assert math.isnan(dbos.handle("w").result())


def test_an_error_has_one_type_in_a_fresh_run_a_replay_and_a_handle(dbos: DBOS) -> None:
    seen: list[object] = []

    @dbos.step
    def charge() -> None:
        error = OutOfStockError("tea", left=1)
        error.add_note("order 17")
        raise error

    @dbos.workflow
    def pay() -> None:
        try:
            charge()
        except OutOfStockError as error:
            seen.append((error.item, error.left, str(error), error.__notes__))
            if len(seen) == 1:
                raise Interruption from None
            raise

    with pytest.raises(Interruption):
        pay.options(workflow_id="p")()
    for _ in range(2):
        with pytest.raises(OutOfStockError) as caught:
            dbos.handle("p").result(PATIENCE)
        error = caught.value
        seen.append((error.item, error.left, str(error), error.__notes__))
    assert seen == [("tea", 1, "no tea left but 1", ["order 17"])] * 4


def test_an_error_of_a_class_that_cannot_be_found_is_remote_both_times(dbos: DBOS) -> None:
    class HiddenError(Exception):
        pass

    seen: list[str] = []
    hidden: list[type[Exception]] = [HiddenError]

    @dbos.step
    def charge() -> None:
        raise hidden[0]("no")

    @dbos.workflow
    def pay() -> None:
        try:
            charge()
        except RemoteError as error:
            seen.append(error.type_name)
        if len(seen) == 1:
            raise Interruption

    with pytest.raises(Interruption):
        pay.options(workflow_id="p")()
    dbos.handle("p").result(PATIENCE)
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0].endswith("HiddenError")


def test_a_result_that_cannot_be_recorded_is_refused_with_its_path(dbos: DBOS) -> None:
    @dbos.step
    def load() -> dict[str, list[object]]:
        return {"items": [1, object()]}

    @dbos.workflow
    def work() -> str:
        with pytest.raises(SerializationError) as caught:
            load()
        assert (caught.value.path, caught.value.type_name) == ("result.items[1]", "object")
        return str(caught.value)

    assert "dbos.types.register" in work()


def test_an_orm_instance_as_a_result_is_refused_with_advice(dbos: DBOS) -> None:
    @dbos.step
    def load() -> Item:
        return Item(name="tea")

    @dbos.workflow
    def work() -> None:
        load()

    with pytest.raises(SerializationError, match="pass its primary key"):
        work()
