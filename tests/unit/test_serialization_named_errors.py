"""Which errors come back as themselves because a registered function names them."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from dbos_orm import errors
from dbos_orm.errors import (
    RemoteError,
)
from dbos_orm.serialization import Codec, JSONSerializer, TypeRegistry
from tests.unit.shop_errors import (
    DataError,
    DiskError,
    OutOfStockError,
    SilentError,
    UnpicklableError,
    come_back,
    raised,
)


@pytest.fixture
def types() -> TypeRegistry:
    return TypeRegistry()


@pytest.fixture
def codec(types: TypeRegistry) -> Codec:
    return Codec(JSONSerializer(types))


def step_that_raises() -> None:
    raise OutOfStockError("tea", left=0)


def workflow_that_catches() -> None:
    try:
        step_that_raises()
    except (errors.RemoteError, SQLAlchemyError, json.JSONDecodeError):

        def inner() -> None:
            raise SilentError(1)

        inner()


RETRIED = (DiskError, TimeoutError)


def step_with_a_constant() -> object:
    return RETRIED


def test_an_error_that_a_registered_function_names_comes_back_as_itself(codec: Codec, types: TypeRegistry) -> None:
    types.register_function(step_that_raises)
    types.register_function(workflow_that_catches)
    types.register_function(step_with_a_constant)
    types.register_function(len)

    for error in (
        OutOfStockError("tea", left=1),
        SilentError(1),
        json.JSONDecodeError("x", "y", 0),
        DiskError("/"),
    ):
        assert type(come_back(codec, error)) is type(error)
    assert type(come_back(codec, UnpicklableError("a", "b"))) is RemoteError


def test_a_database_error_is_caught_where_its_base_is_named(codec: Codec, types: TypeRegistry) -> None:
    types.register_function(workflow_that_catches)
    error = IntegrityError("INSERT", {"id": 1}, Exception("duplicate"))

    read = come_back(codec, raised(error))

    assert isinstance(read, SQLAlchemyError)
    assert isinstance(read, RemoteError)
    assert read.message == str(error)


def test_an_error_in_an_annotation_is_registered(codec: Codec, types: TypeRegistry) -> None:
    def function(error: DataError | None) -> None: ...

    types.register_annotations(function)

    assert come_back(codec, DataError(1)).code == 1


def test_a_registered_database_error_comes_back(codec: Codec, types: TypeRegistry) -> None:
    types.register(IntegrityError)
    error = IntegrityError("INSERT", {"id": 1}, Exception("duplicate"))

    read = come_back(codec, raised(error))

    assert type(read) is IntegrityError
    assert str(read) == str(error)
    assert isinstance(read.orig, Exception)
