"""Classes of the application: how they are recorded, and how they come back."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import (
    Any,
)

import pydantic
import pytest

from dbos_orm.errors import ConfigurationError, SerializationError
from dbos_orm.serialization import Codec, JSONSerializer, TypeRegistry
from tests.unit.shop_types import (
    Box,
    Colour,
    Item,
    Level,
    MappedOrder,
    Mask,
    Model,
    Money,
    Node,
    Open,
    Order,
    Page,
    Point,
    Price,
    Remembering,
    Right,
    Size,
    Slotted,
    come_back,
    made_order,
)


@pytest.fixture
def types() -> TypeRegistry:
    return TypeRegistry()


@pytest.fixture
def codec(types: TypeRegistry) -> Codec:
    return Codec(JSONSerializer(types))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Colour.RED, '"RED"'),
        (Size.SMALL, '"SMALL"'),
        (Level.LOW, '"LOW"'),
        (HTTPStatus.OK, '"OK"'),
        (Right.READ | Right.WRITE, "3"),
        (Mask.TWO, "2"),
        (Price(1), '{"cents":1,"colour":{"$tests.unit.shop_types:Colour":"RED"}}'),
        (Point(1, 2), '{"x":1,"y":2}'),
        (Open(), '{"$extra":{},"$private":{"_secret":1}}'),
    ],
    ids=repr,
)
def test_a_registered_class_is_written_under_its_name(
    types: TypeRegistry, codec: Codec, value: object, written: str
) -> None:
    kind = types.register(type(value))

    payload = codec.encode(value, root="result")

    assert payload == f'{{"${kind.__module__}:{kind.__qualname__}":{written}}}'
    assert come_back(codec, value) == value


@pytest.mark.parametrize(
    "value",
    [Colour.RED, Price(1), Point(1), Model(name="a", price=Price(1)), Money("1"), HTTPStatus.OK],
    ids=repr,
)
def test_a_class_that_is_not_registered_is_refused_with_the_call_that_registers_it(codec: Codec, value: object) -> None:
    with pytest.raises(SerializationError) as caught:
        codec.encode({"it": value}, root="result")

    assert caught.value.path == "result.it"
    assert f"dbos.types.register({type(value).__qualname__}" in str(caught.value)


def test_a_class_that_is_not_registered_is_not_constructed(codec: Codec) -> None:
    payload = f'{{"${Price.__module__}:Price":{{"cents":1}}}}'

    with pytest.raises(SerializationError, match=r"dbos.types.register\(Price\)") as caught:
        codec.decode(payload, codec.name)

    assert caught.value.type_name == f"{Price.__module__}:Price"


def test_a_dataclass_comes_back_with_all_its_fields_and_without_running_its_code(
    types: TypeRegistry, codec: Codec
) -> None:
    types.register(Order)
    order = made_order()
    made = Order.made

    read = come_back(codec, order)

    assert read == order
    assert (read.number, read.notes) == (7, {"to": "door"})
    assert type(read.items[0].price) is Price
    assert Order.made == made


def test_a_field_that_was_never_set_comes_back_unset(types: TypeRegistry, codec: Codec) -> None:
    types.register(Order)

    assert not hasattr(come_back(codec, Order([])), "number")


def test_what_a_dataclass_holds_beside_its_fields_comes_back(types: TypeRegistry, codec: Codec) -> None:
    types.register(Remembering)
    types.register(Slotted)
    slotted = Slotted(1)
    object.__setattr__(slotted, "hidden", 2)
    remembering = Remembering(1)
    assert remembering.thrice

    assert vars(come_back(codec, remembering)) == {"base": 1, "twice": 2}
    assert come_back(codec, slotted).hidden == 2


def test_a_generic_dataclass_comes_back(types: TypeRegistry, codec: Codec) -> None:
    types.register(Box)

    assert come_back(codec, Box[int](1)) == Box(1)


def test_a_path_goes_through_registered_classes(types: TypeRegistry, codec: Codec) -> None:
    types.register(Order)
    price: Any = Money("2")
    order = Order([Item("tea", price)])

    with pytest.raises(SerializationError) as caught:
        codec.encode({"order": order}, root="result")

    assert caught.value.path == "result.order.items[0].price"


def test_a_dataclass_that_contains_itself_is_refused(types: TypeRegistry, codec: Codec) -> None:
    types.register(Box)
    box: Box[Any] = Box(None)
    box.content = [box]

    with pytest.raises(SerializationError, match="contains itself"):
        codec.encode(box, root="result")


@pytest.mark.parametrize(
    "value",
    [
        Model(name="tea", price=Price(1)),
        Model(name="tea", price=Price(1), tags=("a",)),
        Model.model_construct(name=1, price=Price(1), _fields_set={"name"}),
        Open.model_validate({"$date": 1, "other": [Point(1, 2)]}),
        Page[Point](items=[Point(1)]),
        Node({"a": Level.LOW}),
    ],
    ids=repr,
)
def test_a_pydantic_model_comes_back_equal(types: TypeRegistry, codec: Codec, value: pydantic.BaseModel) -> None:
    types.register(type(value))
    types.register(Point)

    read = come_back(codec, value)

    assert read == value
    assert read.model_fields_set == value.model_fields_set
    assert read.__pydantic_extra__ == value.__pydantic_extra__


def test_a_private_attribute_of_a_pydantic_model_comes_back(types: TypeRegistry, codec: Codec) -> None:
    types.register(Open)
    model = Open()
    model._secret = 2

    assert come_back(codec, model)._secret == 2


def test_any_class_can_be_registered_with_two_functions(types: TypeRegistry, codec: Codec) -> None:
    types.register(Money, encode=lambda money: {"$text": money.text}, decode=lambda parts: Money(parts["$text"]))
    types.register(PurePosixPath, encode=str, decode=PurePosixPath)

    assert come_back(codec, [Money("1"), {Money("2"): PurePosixPath("a/b")}]) == [
        Money("1"),
        {Money("2"): PurePosixPath("a/b")},
    ]


def test_a_function_that_fails_gives_the_error_of_this_library(types: TypeRegistry, codec: Codec) -> None:
    def fail(_: object) -> Any:
        raise KeyError("nothing")

    types.register(Money, encode=fail, decode=fail)

    with pytest.raises(SerializationError, match="KeyError: 'nothing'"):
        codec.encode([Money("1")], root="result")
    with pytest.raises(SerializationError, match="KeyError: 'nothing'"):
        codec.decode(f'{{"${Price.__module__}:Money":1}}', codec.name)


def test_register_is_a_decorator(types: TypeRegistry, codec: Codec) -> None:
    @types.register
    @dataclass
    class Local:
        number: int

    assert come_back(codec, Local(1)) == Local(1)


def test_a_class_that_moved_reads_its_old_rows(types: TypeRegistry, codec: Codec) -> None:
    types.register(Point, name="shop:Point", former_names=["shop.old:Point"])

    assert codec.encode(Point(1), root="result") == '{"$shop:Point":{"x":1,"y":0}}'
    assert codec.decode('{"$shop.old:Point":{"x":1}}', codec.name) == Point(1, 0)


@pytest.mark.parametrize(
    ("kind", "recorded", "now"),
    [
        (Price, {"cents": 1}, {"cents": 1, "colour": Colour.RED}),
        (Order, {"items": [], "number": 1}, {"items": [], "number": 1, "notes": {}}),
        (Point, {"x": 1}, {"x": 1, "y": 0}),
        (Remembering, {"base": 1, "gone": 2}, {"base": 1, "gone": 2}),
        (Model, {"name": "a", "price": 1, "gone": 1}, {"name": "a", "price": 1, "tags": ()}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rows_from_before_a_field_was_added_or_removed_are_read(
    types: TypeRegistry, codec: Codec, kind: type, recorded: object, now: dict[str, object]
) -> None:
    types.register(kind, name="shop:It")

    read = codec.decode(codec.encode(recorded, root="r").join(('{"$shop:It":', "}")), codec.name)

    assert type(read) is kind
    assert {name: getattr(read, name) for name in now} == now


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        (Price, "{}", "its field 'cents' was not recorded and has no default"),
        (Price, '{"cents":1,"gone":2}', "gone"),
        (Price, "1", "TypeError"),
        (Point, '{"x":1,"z":2}', "it has no field 'z' any more"),
        (Point, "{}", "'x'"),
        (Model, "{}", "its field 'name' was not recorded and has no default"),
        (Colour, '"BLUE"', "KeyError: 'BLUE'"),
        (Colour, "[]", "TypeError"),
    ],
)
def test_a_row_that_does_not_fit_its_class_raises_the_error_of_this_library(
    types: TypeRegistry, codec: Codec, kind: type, payload: str, reason: str
) -> None:
    types.register(kind, name="shop:It")

    with pytest.raises(SerializationError, match=reason) as caught:
        codec.decode(f'{{"$shop:It":{payload}}}', codec.name)

    assert caught.value.type_name == "shop:It"


def test_values_of_a_class_that_was_defined_anew_are_refused(types: TypeRegistry, codec: Codec) -> None:
    def define() -> type:
        @types.register
        @dataclass
        class Again:
            number: int

        return Again

    former, latter = define(), define()

    assert come_back(codec, latter(1)) == latter(1)
    with pytest.raises(SerializationError):
        codec.encode(former(1), root="result")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (MappedOrder, "primary key"),
        (Money, "encode= and decode="),
        (threading.Thread, "encode= and decode="),
        (list, "not recorded by itself"),
        (dataclass(type("Words", (list,), {})), "encode= and decode="),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_registering_a_class_of_no_known_kind_says_what_to_do(types: TypeRegistry, kind: type, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        types.register(kind)


def test_registering_with_half_of_the_functions_or_a_bad_name_says_what_to_do(types: TypeRegistry) -> None:
    with pytest.raises(ConfigurationError, match="both functions, or neither"):
        types.register(Money, encode=str)
    with pytest.raises(ConfigurationError, match="a name with a colon"):
        types.register(Point, name="Point")
