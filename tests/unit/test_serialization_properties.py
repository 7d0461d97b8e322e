"""What holds for every value of the built-in types, and for what is built of them."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import timedelta, timezone
from enum import Enum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbos_orm.serialization import Codec, JSONSerializer, TypeRegistry
from tests.unit.sameness import assert_same


class Colour(Enum):
    RED = "red"
    GREEN = ("green", 1)


@dataclass(frozen=True)
class Line:
    item: object
    count: object = 1


class Point(NamedTuple):
    x: object
    y: object = 0


# What is slow here is a shared machine; no value is large.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make_codec() -> Codec:
    types = TypeRegistry()
    for kind in (Colour, Line, Point):
        types.register(kind)
    return Codec(JSONSerializer(types))


CODEC = make_codec()

any_text = st.text(st.characters(exclude_categories=()))
near_tags = st.sampled_from(["$", "$dict", "$date", "$tuple", "$x:Y", "\ud83d\ude00", "\0"])
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)) | st.just(timedelta(microseconds=1))
fixed = offsets.map(timezone) | st.builds(timezone, offsets, st.text())
named = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
zones = st.none() | fixed | named.map(ZoneInfo)
hashable: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2040, max_value=2060).map(lambda bits: -(1 << bits)),
    st.floats(allow_nan=False),
    any_text,
    near_tags,
    st.binary(),
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from(Colour),
)
scalars: st.SearchStrategy[Any] = hashable | st.floats() | st.decimals() | st.binary().map(bytearray)
keys: st.SearchStrategy[Hashable] = st.recursive(
    hashable,
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3) | st.builds(Point, inner, inner),
    max_leaves=4,
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars | st.sets(keys, max_size=4) | st.frozensets(keys, max_size=4),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(any_text | near_tags, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.builds(Line, inner, inner),
        st.builds(Point, inner, inner),
    ),
    max_leaves=12,
)


@unhurried
@given(values)
def test_every_value_comes_back_equal_and_of_the_same_type(value: object) -> None:
    payload = CODEC.encode(value, root="result")

    assert_same(CODEC.decode(payload, CODEC.name), value)


@unhurried
@given(values)
def test_a_value_that_came_back_is_written_in_the_same_text(value: object) -> None:
    payload = CODEC.encode(value, root="result")

    assert CODEC.encode(CODEC.decode(payload, CODEC.name), root="result") == payload


@unhurried
@given(values)
def test_the_text_is_json_in_ascii_without_control_characters(value: object) -> None:
    payload = CODEC.encode(value, root="result")

    assert re.fullmatch(r"[ -~]+", payload)
    json.loads(payload, parse_constant=lambda name: 1 / 0)


@unhurried
@given(st.dictionaries(any_text | near_tags, st.integers()), st.randoms())
def test_a_dict_keeps_the_order_of_its_keys(value: dict[str, int], random: Any) -> None:
    items = [*value.items()]
    random.shuffle(items)

    read: Any = CODEC.decode(CODEC.encode(dict(items), root="result"), CODEC.name)

    assert [*read.items()] == items


@unhurried
@given(st.lists(values, max_size=3).map(tuple), st.dictionaries(any_text, values, max_size=3))
def test_arguments_come_back_as_they_were_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    payload = CODEC.encode_arguments(args, kwargs, signature=None)

    assert_same(CODEC.decode_arguments(payload, CODEC.name), (args, kwargs))


@unhurried
@given(st.lists(values, max_size=3), any_text, st.lists(any_text, max_size=2))
def test_a_builtin_error_comes_back_with_its_arguments_and_notes(
    args: list[Any], attribute: str, notes: list[str]
) -> None:
    error = LookupError(*args)
    vars(error)["attribute"] = attribute
    for note in notes:
        error.add_note(note)

    read: Any = CODEC.decode_error(CODEC.encode_error(error), CODEC.name)

    assert type(read) is LookupError
    assert_same(read.args, tuple(args))
    assert vars(read)["attribute"] == attribute
    assert getattr(read, "__notes__", []) == notes
