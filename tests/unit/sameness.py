"""Equality as the serialization promises it: of the same type, all the way down."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime, time
from decimal import Decimal
from typing import Any


def assert_same(one: Any, other: Any) -> None:
    """Fail unless both are equal, of the same types, with dicts in the same order."""
    assert type(one) is type(other), (one, other)
    match other:
        case list() | tuple():
            assert len(one) == len(other)
            for left, right in zip(one, other, strict=True):
                assert_same(left, right)
        case dict():
            assert_same([*one.items()], [*other.items()])
        case _ if dataclasses.is_dataclass(other):
            assert_same(vars(one), vars(other))
        case set() | frozenset():
            assert one == other
            assert {type(member) for member in one} == {type(member) for member in other}
        case float():
            assert math.copysign(1, one) == math.copysign(1, other) or math.isnan(other)
            assert one == other or (math.isnan(one) and math.isnan(other))
        case Decimal():
            assert one.as_tuple() == other.as_tuple()
        case datetime() | time():
            assert one.replace(tzinfo=None) == other.replace(tzinfo=None)
            assert (one.fold, one.tzinfo) == (other.fold, other.tzinfo)
            assert type(one.tzinfo) is type(other.tzinfo)
        case _:
            assert one == other
