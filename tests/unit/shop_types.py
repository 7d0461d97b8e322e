"""Classes of an application, one of each kind that can be registered, and some that cannot."""

from __future__ import annotations

import enum
import functools
from dataclasses import InitVar, dataclass, field
from typing import (
    Annotated,
    ClassVar,
    Generic,
    NamedTuple,
    TypedDict,
    TypeVar,
)

import pydantic
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from dbos_orm.serialization import Codec

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


@dataclass
class Total:
    start: InitVar[Price]
    cents: int = 0


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

    def __repr__(self) -> str:
        return f"Money({self.text!r})"


class Base(DeclarativeBase):
    pass


class MappedOrder(MappedAsDataclass, Base):
    __tablename__ = "order"

    id: Mapped[int] = mapped_column(primary_key=True)


def come_back(codec: Codec, value: T) -> T:
    read = codec.decode(codec.encode(value, root="result"), codec.name)
    assert type(read) is type(value)
    return read


def made_order() -> Order:
    order = Order([Item("tea", Price(250))])
    order.number = 7
    order.notes["to"] = "door"
    return order
