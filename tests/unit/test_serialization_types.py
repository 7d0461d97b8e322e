"""Classes of the application: which are registered, how they are recorded, and how they come back."""

from __future__ import annotations

import enum
import functools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    TypedDict,
    TypeVar,
)

import pydantic
import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from dbos_orm.errors import ConfigurationError, SerializationError
from dbos_orm.serialization import Codec, JSONSerializer, TypeRegistry

if TYPE_CHECKING:
    from fractions import Fraction as Unknown

    class Later: ...


T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    GREEN = ("green", 1)


class Size(enum.StrEnum):
    SMALL = "s"


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Mask(enum.IntFlag):
    ONE = 1
    TWO = 2


@dataclass
class Item:
    name: str
    price: Price


@dataclass(frozen=True, slots=True)
class Price:
    cents: int
    colour: Colour = Colour.RED


@dataclass
class Order:
    items: list[Item]
    number: int = field(init=False)
    notes: dict[str, str] = field(default_factory=dict, compare=False)
    made: ClassVar[int] = 0

    def __post_init__(self) -> None:
        type(self).made += 1


@dataclass
class Box(Generic[T]):
    content: T


@dataclass(eq=False)
class Remembering:
    base: int

    def __post_init__(self) -> None:
        self.twice = self.base * 2

    @functools.cached_property
    def thrice(self) -> object:
        return object()


class SlottedBase:
    __slots__ = ("hidden",)

    hidden: int


@dataclass(slots=True)
class Slotted(SlottedBase):
    shown: int


class Point(NamedTuple):
    x: int
    y: int = 0


class Leg(TypedDict):
    start: Point
    kind: Annotated[Right, "how"]


class Model(pydantic.BaseModel):
    name: str
    price: Price
    tags: tuple[str, ...] = ()


class Open(pydantic.BaseModel, extra="allow"):
    _secret: int = pydantic.PrivateAttr(default=1)


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Node(pydantic.RootModel[dict[str, Level]]):
    pass


class Money:
    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class Base(DeclarativeBase):
    pass


class MappedOrder(MappedAsDataclass, Base):
    __tablename__ = "order"

    id: Mapped[int] = mapped_column(primary_key=True)


Tagged = Annotated[Size, 1]
Amount = NewType("Amount", Price)
Bound = TypeVar("Bound", bound=Point)


@pytest.fixture
def types() -> TypeRegistry:
    return TypeRegistry()


@pytest.fixture
def codec(types: TypeRegistry) -> Codec:
    return Codec(JSONSerializer(types))


def come_back(codec: Codec, value: T) -> T:
    read = codec.decode(codec.encode(value, root="result"), codec.name)
    assert type(read) is type(value)
    return read


def made_order() -> Order:
    order = Order([Item("tea", Price(250))])
    order.number = 7
    order.notes["to"] = "door"
    return order


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Colour.RED, '"RED"'),
        (Size.SMALL, '"SMALL"'),
        (Level.LOW, '"LOW"'),
        (HTTPStatus.OK, '"OK"'),
        (Right.READ | Right.WRITE, "3"),
        (Mask.TWO, "2"),
        (Price(1), '{"cents":1,"colour":{"$tests.unit.test_serialization_types:Colour":"RED"}}'),
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
def test_a_class_that_is_not_registered_is_refused_with_the_call_that_registers_it(
    codec: Codec, value: object
) -> None:
    with pytest.raises(SerializationError) as caught:
        codec.encode({"it": value}, root="result")

    assert caught.value.path == "result.it"
    assert f"dbos.types.register({type(value).__qualname__}" in str(caught.value)


def test_a_class_that_is_not_registered_is_not_constructed(codec: Codec) -> None:
    payload = f'{{"${__name__}:Price":{{"cents":1}}}}'

    with pytest.raises(SerializationError, match=r"dbos.types.register\(Price\)") as caught:
        codec.decode(payload, codec.name)

    assert caught.value.type_name == f"{__name__}:Price"


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
def test_a_pydantic_model_comes_back_equal(
    types: TypeRegistry, codec: Codec, value: pydantic.BaseModel
) -> None:
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
    types.register(
        Money, encode=lambda money: {"$text": money.text}, decode=lambda parts: Money(parts["$text"])
    )
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
        codec.decode(f'{{"${__name__}:Money":1}}', codec.name)


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
        (Price, {"cents": 1}, Price(1, Colour.RED)),
        (Point, {"x": 1}, Point(1, 0)),
        (Remembering, {"base": 1, "gone": 2}, None),
        (Model, {"name": "a", "price": 1, "gone": 1}, Model.model_construct(name="a", price=1)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rows_from_before_a_field_was_added_or_removed_are_read(
    types: TypeRegistry, codec: Codec, kind: type, recorded: object, now: object
) -> None:
    types.register(kind, name="shop:It")

    read = codec.decode(codec.encode(recorded, root="r").join(('{"$shop:It":', "}")), codec.name)

    assert read == now or vars(read) == {"base": 1, "gone": 2}


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
def test_registering_a_class_of_no_known_kind_says_what_to_do(
    types: TypeRegistry, kind: type, expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        types.register(kind)


def test_registering_with_half_of_the_functions_or_a_bad_name_says_what_to_do(types: TypeRegistry) -> None:
    with pytest.raises(ConfigurationError, match="both functions, or neither"):
        types.register(Money, encode=str)
    with pytest.raises(ConfigurationError, match="a name with a colon"):
        types.register(Point, name="Point")


# Annotations


class Orders(Box[Order]): ...


def ordering(orders: Orders, *, amount: Amount) -> Sequence[Mapping[str, Point | None]]:
    raise NotImplementedError


def far(callback: Callable[[Box[int], Leg], Literal[Mask.ONE]], page: Page[Level], *rest: Bound) -> Tagged:
    raise NotImplementedError


def for_checkers(unknown: Unknown, order: Order) -> Later:
    raise NotImplementedError


def unannotated(order, price=Price(1)):  # type: ignore[no-untyped-def]
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (ordering, [Orders, Order, Item, Price, Colour, Point]),
        (far, [Box, Point, Right, Mask, Page[Level], Level, Size]),
        (for_checkers, [Order, Item, Price, Colour]),
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
