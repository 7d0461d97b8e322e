"""Exceptions of an application, with constructors of every sort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pytest

from dbos_orm.serialization import Codec


class ShopError(Exception):
    def __str__(self) -> str:
        return f"shop: {self.needed}"  # type: ignore[attr-defined]


class OutOfStockError(Exception):
    def __init__(self, item: str, *, left: int) -> None:
        super().__init__(f"no {item} left but {left}")
        self.item, self.left = item, left


class SoldOutError(OutOfStockError):
    pass


class SilentError(ValueError):
    def __init__(self, value: int) -> None:
        self.value = value


class DiskError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(28, "full", path)
        self.path = path


@dataclass(frozen=True)
class DataError(Exception):
    code: int


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)
        self.two = two


class BrokenTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class StrictError(Exception):
    def __new__(cls, *args: object) -> Self:
        if args != ("secret",):
            raise TypeError("no")
        return super().__new__(cls, *args)


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def come_back(codec: Codec, error: BaseException) -> Any:
    return codec.decode_error(codec.encode_error(error), codec.name)
