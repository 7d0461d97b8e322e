"""Which classes are registered because a function speaks of them."""

from __future__ import annotations

import functools
import sys
import threading
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Literal,
    NewType,
    TypeVar,
)

import pytest

from dbos_orm.errors import SerializationError
from dbos_orm.serialization import Codec, JSONSerializer, TypeRegistry
from tests.unit.shop_types import (
    Box,
    Colour,
    Item,
    Leg,
    Level,
    MappedOrder,
    Mask,
    Order,
    Page,
    Point,
    Price,
    Remembering,
    Right,
    Size,
    Total,
    come_back,
    made_order,
)

if TYPE_CHECKING:
    from fractions import Fraction as Unknown

    class Later: ...


Tagged = Annotated[Size, 1]
Amount = NewType("Amount", Price)
Bound = TypeVar("Bound", bound=Point)


@pytest.fixture
def types() -> TypeRegistry:
    return TypeRegistry()


@pytest.fixture
def codec(types: TypeRegistry) -> Codec:
    return Codec(JSONSerializer(types))


class Orders(Box[Order]): ...


def ordering(orders: Orders, *, amount: Amount) -> Sequence[Mapping[str, Point | None]]:
    raise NotImplementedError


def far(callback: Callable[[Box[int], Leg], Literal[Mask.ONE]], page: Page[Level], *rest: Bound) -> Tagged:
    raise NotImplementedError


def for_checkers(unknown: Unknown, order: Order) -> Later:
    raise NotImplementedError


def misspelt(order: typing.Undefined, price: Price) -> None:  # type: ignore[name-defined]
    raise NotImplementedError


def unannotated(order, price=None):  # type: ignore[no-untyped-def]
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (ordering, [Orders, Order, Item, Price, Colour, Point]),
        (far, [Box, Point, Right, Mask, Page[Level], Level, Size]),
        (for_checkers, [Order, Item, Price, Colour]),
        (misspelt, [Price, Colour]),
        (Total.__init__, [Price, Colour]),
        (unannotated, []),
        (functools.partial(ordering), []),
        (len, []),
        (functools.wraps(ordering)(lambda *args: None), [Order, Point]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_classes_in_annotations_are_registered(
    types: TypeRegistry, function: Callable[..., object], found: list[type]
) -> None:
    types.register_annotations(function)

    for kind in found:
        assert types.shape_of(kind) is not None, kind
    assert types.shape_of(Remembering) is None


def test_an_annotation_is_resolved_once_its_name_exists(
    types: TypeRegistry, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    types.register_annotations(for_checkers)

    @dataclass
    class Soon:
        number: int

    with pytest.raises(SerializationError):
        codec.encode(Soon(1), root="result")

    monkeypatch.setitem(globals(), "Later", Soon)

    assert come_back(codec, Soon(1)) == Soon(1)


def test_classes_of_an_enclosing_function_are_found(types: TypeRegistry, codec: Codec) -> None:
    @dataclass
    class Local:
        number: int

    def function() -> Local:
        return Local(1)

    types.register_annotations(function)

    assert come_back(codec, function()) == Local(1)


def test_a_class_that_the_enclosing_function_defines_later_is_found(types: TypeRegistry, codec: Codec) -> None:
    def function() -> Local:
        return Local(1)

    types.register_annotations(function)
    assert types.shape_of(Price) is None

    @dataclass
    class Local:
        number: int

    assert come_back(codec, function()) == Local(1)


def test_a_mapped_class_in_an_annotation_is_not_registered(types: TypeRegistry, codec: Codec) -> None:
    def function(order: MappedOrder) -> None: ...

    types.register_annotations(function)

    with pytest.raises(SerializationError, match="primary key"):
        codec.encode(MappedOrder(id=1), root="result")


def test_threads_that_need_the_first_class_at_once_all_find_it(types: TypeRegistry, codec: Codec) -> None:
    for _ in range(50):
        types.register_annotations(ordering)
    interval = sys.getswitchinterval()
    succeeded: list[int] = []
    barrier = threading.Barrier(8)

    def encode() -> None:
        barrier.wait()
        come_back(codec, made_order())
        succeeded.append(1)

    threads = [threading.Thread(target=encode) for _ in range(8)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)

    assert sum(succeeded) == 8


def test_pydantic_is_not_imported_to_look_for_its_models(
    types: TypeRegistry, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pydantic")

    types.register(Point)
    assert come_back(codec, Point(1)) == Point(1)

    assert "pydantic" not in sys.modules
