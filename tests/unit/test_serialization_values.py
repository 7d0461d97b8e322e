"""The text of values of the built-in types, and what is refused."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from dbos_orm.errors import SerializationError
from dbos_orm.serialization import Codec, JSONSerializer, TypeRegistry
from tests.unit.sameness import assert_same

BERLIN = ZoneInfo("Europe/Berlin")
NAIVE = datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "order"

    id: Mapped[int] = mapped_column(primary_key=True)


class MappedData(MappedAsDataclass, Base):
    __tablename__ = "data"

    id: Mapped[int] = mapped_column(primary_key=True)


class Name(str):
    __slots__ = ()


class Money:
    pass


@pytest.fixture
def codec() -> Codec:
    return Codec(JSONSerializer(TypeRegistry()))


def refusal(codec: Codec, value: object) -> SerializationError:
    with pytest.raises(SerializationError) as caught:
        codec.encode(value, root="result")
    return caught.value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e22, "1e+22"),
        (10**22, "1" + "0" * 22),
        (1 << 3000, '{"$int":"0x1' + "0" * 750 + '"}'),
        (float("nan"), '{"$float":"nan"}'),
        (float("-inf"), '{"$float":"-inf"}'),
        ("a\0é", '"a\\u0000\\u00e9"'),
        ("\ud800", '"\\ud800"'),
        ("\ud83d\ude00", '{"$str":["\\ud83d","\\ude00"]}'),
        ("\U0001f600", '"\\ud83d\\ude00"'),
        (b"\0\xff", '{"$bytes":"AP8="}'),
        (bytearray(b"\0"), '{"$bytearray":"AA=="}'),
        ((), '{"$tuple":[]}'),
        ([1, (2, [3])], '[1,{"$tuple":[2,[3]]}]'),
        ({"b": 1, "a": 2}, '{"b":1,"a":2}'),
        ({1: "a", "1": "b"}, '{"$dict":[[1,"a"],["1","b"]]}'),
        ({"$date": "2026-11-22"}, '{"$dict":[["$date","2026-11-22"]]}'),
        ({"$date": 1, "other": 2}, '{"$date":1,"other":2}'),
        ({"\ud83d\ude00": 1}, '{"$dict":[[{"$str":["\\ud83d","\\ude00"]},1]]}'),
        ({3, 1, 2}, '{"$set":[1,2,3]}'),
        (frozenset({2, 1}), '{"$frozenset":[1,2]}'),
        (date(2026, 11, 22), '{"$date":"2026-11-22"}'),
        (NAIVE, '{"$datetime":"2026-11-22T01:02:03.000004"}'),
        (datetime(2026, 11, 22, tzinfo=UTC), '{"$datetime":"2026-11-22T00:00:00+00:00"}'),
        (
            datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
            '{"$datetime":{"at":"2026-10-25T02:30:00","zone":"Europe/Berlin","fold":1}}',
        ),
        (time(1, 2, tzinfo=timezone(timedelta(hours=-5))), '{"$time":"01:02:00-05:00"}'),
        (timedelta(microseconds=-1), '{"$timedelta":[-1,86399,999999]}'),
        (Decimal("-1.50E+3"), '{"$decimal":"-1.50E+3"}'),
        (Decimal("sNaN7"), '{"$decimal":"sNaN7"}'),
        (UUID(int=1), '{"$uuid":"00000000-0000-0000-0000-000000000001"}'),
    ],
    ids=repr,
)
def test_a_value_is_written_in_this_way_and_comes_back(codec: Codec, value: object, written: str) -> None:
    payload = codec.encode(value, root="result")

    assert payload == written
    assert_same(codec.decode(payload, codec.name), value)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 11, 22, tzinfo=timezone(timedelta(hours=1), "CET")),
        datetime(2026, 11, 22, tzinfo=timezone(timedelta(seconds=1, microseconds=1))),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        NAIVE.replace(fold=1),
        time(2, 30, tzinfo=BERLIN, fold=1),
    ],
    ids=repr,
)
def test_a_zone_keeps_its_name_its_offset_and_its_fold(codec: Codec, value: datetime | time) -> None:
    read: Any = codec.decode(codec.encode(value, root="result"), codec.name)

    assert_same(read, value)
    assert read.tzname() == value.tzname()


@pytest.mark.parametrize(
    "value",
    ['{"$date":"x"}', '"$date"', {"a": '{"$date":"x"}'}, {"$": {"$dict": []}}, {"$dict": [[1, 2]]}],
    ids=repr,
)
def test_text_that_looks_like_a_tag_is_just_text(codec: Codec, value: object) -> None:
    assert_same(codec.decode(codec.encode(value, root="result"), codec.name), value)


def test_a_value_in_which_nothing_needs_a_tag_is_not_copied_or_changed(codec: Codec) -> None:
    inner = [1, (2,)]
    value = {"inner": inner}

    codec.encode(value, root="result")

    assert value == {"inner": [1, (2,)]}
    assert value["inner"] is inner


def test_a_set_is_written_in_one_order_in_every_process(codec: Codec) -> None:
    words = [f"word {number}" for number in range(100)]

    assert json.loads(codec.encode(set(words), root="r")) == {"$set": sorted(words)}


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        (Money(), "result", "Money"),
        ({"items": [1, 2, 3, {"price": Money()}]}, "result.items[3].price", "Money"),
        ({"unit price": Money()}, "result['unit price']", "Money"),
        ({"a": {(1, Money()): 2}}, "result.a.keys()[0][1]", "Money"),
        ({1: {2: Money()}}, "result[1][2]", "Money"),
        ((1, (Money(),)), "result[1][0]", "Money"),
        ([{frozenset({Money()})}], "result[0]{...}{...}", "Money"),
        ({"at": [time(1, tzinfo=type("Zone", (tzinfo,), {})())]}, "result.at[0].tzinfo", "Zone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "value",
)
def test_a_refusal_says_where_the_value_is(codec: Codec, value: object, path: str, type_name: str) -> None:
    error = refusal(codec, value)

    assert (error.path, error.type_name) == (path, type_name)
    assert str(error).startswith(f"{path}: {type_name}; ")


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Money(), "dbos.types.register(Money, encode=..., decode=...)"),
        (Order(id=1), "pass its primary key"),
        (MappedData(id=1), "pass its primary key"),
        (OrderedDict(a=1), "dict(...)"),
        (defaultdict(int), "dict(...)"),
        (Counter("a"), "dict(...)"),
        (Name("x"), "str(...)"),
        (ValueError("x"), "raise it"),
        ((number for number in (1, 2)), "list(...)"),
        (Money, "pass its name"),
        (print, "pass its name"),
        (Path("x"), "encode=..., decode=..."),
        (range(3), "encode=..., decode=..."),
        (1j, "encode=..., decode=..."),
        (type("float64", (float,), {"__module__": "numpy"})(1), "float(...)"),
        (type("int8", (), {"__module__": "numpy"})(), ".item()"),
        (UTC, "encode=..., decode=..."),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_refusal_says_what_to_do(codec: Codec, value: object, advice: str) -> None:
    error = refusal(codec, [value])

    assert error.path == "result[0]"
    assert advice in error.advice


def test_a_row_of_a_query_is_refused_with_advice(codec: Codec) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        row = connection.execute(text("select 1 as one")).one()
    engine.dispose()

    assert "dict(row._mapping)" in refusal(codec, row).advice


async def test_a_coroutine_that_was_not_awaited_is_refused_with_advice(codec: Codec) -> None:
    sleeping = asyncio.sleep(0)

    assert "await it" in refusal(codec, {"wait": sleeping}).advice
    await sleeping


def test_a_value_that_contains_itself_is_refused(codec: Codec) -> None:
    circle: dict[str, Any] = {"children": []}
    circle["children"].append((circle,))

    error = refusal(codec, circle)

    assert "contains itself" in error.advice
    assert len(error.path) < 200


def test_an_object_that_occurs_twice_is_no_circle(codec: Codec) -> None:
    twice = [1]

    assert codec.encode([twice, twice, {"a": twice}], root="r") == '[[1],[1],{"a":[1]}]'


@pytest.mark.parametrize("around", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner,)])
def test_a_value_nested_too_deeply_is_refused_and_any_other_comes_back(codec: Codec, around: Any) -> None:
    value: Any = None
    for _ in range(90):
        value = around(value)
    assert_same(codec.decode(codec.encode(value, root="r"), codec.name), value)

    for _ in range(100_000):
        value = around(value)
    assert "nested deeper than" in refusal(codec, value).advice


def test_a_full_stack_gives_the_error_of_this_library(codec: Codec) -> None:
    value: list[Any] = []
    for _ in range(150):
        value = [value]

    def fill(levels: int) -> str:
        return fill(levels - 1) if levels else codec.encode(value, root="r")

    with pytest.raises(SerializationError, match="no room"):
        fill(sys.getrecursionlimit() - len(list(_frames())) - 60)


def _frames() -> Any:
    frame: Any = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "{",
        "nan",
        "[" * 100_000,
        '{"$date":1}',
        '{"$date":"yesterday"}',
        '{"$bytes":"?"}',
        '{"$timedelta":[1]}',
        '{"$set":[[]]}',
        '{"$dict":[[1]]}',
        '{"$float":[]}',
        '{"$datetime":{"at":"2026-11-22T00:00:00","zone":"../../etc/passwd"}}',
        '{"$datetime":{"at":"2026-11-22T00:00:00","zone":"No/Where"}}',
        '{"$unheard":1}',
        '{"$os:system":"true"}',
    ],
)
def test_a_payload_that_cannot_be_read_raises_the_error_of_this_library(codec: Codec, payload: str) -> None:
    with pytest.raises(SerializationError) as caught:
        codec.decode(payload, codec.name)

    assert caught.value.path == "payload"


def test_reading_imports_no_module(codec: Codec) -> None:
    assert "this" not in sys.modules

    with pytest.raises(SerializationError, match=r"import this and register it: dbos.types.register\(Zen\)"):
        codec.decode('{"$this:Zen":{}}', codec.name)

    assert "this" not in sys.modules
