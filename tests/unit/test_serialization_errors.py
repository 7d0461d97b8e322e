"""Errors come back with their type, message, arguments, attributes, notes and traceback text."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import sys
import traceback
from datetime import UTC, datetime

import pytest

from dbos_orm import errors
from dbos_orm.errors import (
    DatabaseUnavailableError,
    MaxStepRetriesExceededError,
    RemoteError,
    SerializationError,
)
from dbos_orm.serialization import Codec, JSONSerializer, PickleSerializer, RaisedElsewhereError, TypeRegistry
from dbos_orm.serialization._encoding import DEEPEST
from tests.unit import test_errors
from tests.unit.shop_errors import (
    BrokenTextError,
    DataError,
    DiskError,
    OutOfStockError,
    ShopError,
    SilentError,
    SoldOutError,
    StrictError,
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


RECORDED_ERRORS = [kind for kind in test_errors.PUBLIC_ERRORS if issubclass(kind, errors.DBOSError)]


def builtin_errors() -> list[BaseException]:
    found: list[BaseException] = [
        ValueError(),
        ValueError("a", 1, (2.0,)),
        KeyError("k"),
        OSError(2, "gone", "a.txt", None, "b.txt"),
        FileNotFoundError(2, "gone", "a.txt"),
        ConnectionResetError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        UnicodeEncodeError("ascii", "é", 0, 1, "bad"),
        StopIteration(7),
        SystemExit(3),
        ImportError("no", name="module", path="/path"),
        SyntaxError("bad", ("file.py", 1, 2, "text", 1, 3)),
        TimeoutError("late"),
        KeyboardInterrupt(),
        ExceptionGroup("several", [ValueError(1), ExceptionGroup("inner", [KeyError("k")])]),
        BaseExceptionGroup("several", [KeyboardInterrupt()]),
    ]
    for code in ("undefined_name", "None.attribute", "1 / 0", "[][1]", "int('x')", "__import__('none')"):
        with pytest.raises(Exception, match=r".") as caught:
            eval(code)
        found.append(caught.value)
    return found


@pytest.mark.parametrize("error", builtin_errors(), ids=lambda error: type(error).__name__)
def test_a_builtin_error_comes_back_as_it_was(codec: Codec, error: BaseException) -> None:
    read = come_back(codec, raised(error))

    assert type(read) is type(error)
    assert (str(read), repr(read)) == (str(error), repr(error))
    names = [
        "errno",
        "strerror",
        "filename",
        "filename2",
        "value",
        "code",
        "object",
        "start",
        "name",
        "path",
        "lineno",
    ]
    for name in names:
        if not isinstance(error, AttributeError) or name == "name":
            assert repr(getattr(read, name, None)) == repr(getattr(error, name, None)), name


@pytest.mark.parametrize("kind", RECORDED_ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_of_this_library_comes_back_with_its_facts(codec: Codec, kind: type[BaseException]) -> None:
    error = kind(**test_errors.FACTS[kind.__name__])

    read = come_back(codec, error)

    assert type(read) is kind
    assert str(read) == str(error)
    assert repr(vars(read)) == repr(vars(error))


def test_the_errors_of_all_attempts_come_back(codec: Codec, types: TypeRegistry) -> None:
    types.register(OutOfStockError)
    error = MaxStepRetriesExceededError(
        "charge", 2, [OutOfStockError("tea", left=1), json.JSONDecodeError("x", "y", 0)]
    )

    read = come_back(codec, error)

    assert isinstance(read.errors[0], OutOfStockError)
    assert read.errors[0].left == 1
    assert isinstance(read.errors[1], RemoteError)
    assert read.errors[1].type_name == "json.decoder:JSONDecodeError"


def test_an_error_that_is_a_fact_comes_back(codec: Codec) -> None:
    read = come_back(codec, DatabaseUnavailableError("sqlite://", 1.0, ConnectionRefusedError(111, "refused")))

    assert isinstance(read.cause, ConnectionRefusedError)
    assert read.cause.errno == 111


@pytest.mark.parametrize(
    "error",
    [
        OutOfStockError("tea", left=1),
        SilentError(3),
        DiskError("/data"),
        DataError(4),
        UnpicklableError("a", "b"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_registered_error_comes_back_without_its_constructor(
    codec: Codec, types: TypeRegistry, error: Exception
) -> None:
    types.register(type(error))

    read = come_back(codec, raised(error))

    assert type(read) is type(error)
    assert read.args == error.args
    assert str(read) == str(error)
    assert vars(read) == vars(error)
    assert getattr(read, "errno", None) == getattr(error, "errno", None)


def test_notes_come_back_and_the_traceback_prints(codec: Codec) -> None:
    def cause() -> None:
        raise KeyError("first")

    def fail() -> None:
        try:
            cause()
        except KeyError as error:
            raise ValueError("second") from error

    with pytest.raises(ValueError, match="second") as caught:
        fail()
    caught.value.add_note("look here")

    read = come_back(codec, caught.value)

    assert read.__notes__ == ["look here"]
    assert isinstance(read.__cause__, RaisedElsewhereError)
    assert "KeyError: 'first'" in read.__cause__.text
    printed = "".join(traceback.format_exception(read))
    assert "in fail" in printed
    assert "in cause" in printed
    assert printed.endswith("ValueError: second\nlook here\n")


def test_an_error_that_came_back_can_be_recorded_again(codec: Codec) -> None:
    error: BaseException = ValueError("no")
    error.add_note("note")
    for _ in range(3):
        error = come_back(codec, raised(error))

    assert (type(error), error.args, error.__notes__) == (ValueError, ("no",), ["note"])
    assert isinstance(error.__cause__, RaisedElsewhereError)
    assert "in raised" in error.__cause__.text


def test_a_long_traceback_is_cut_in_its_middle(codec: Codec) -> None:
    read = come_back(codec, raised(ValueError("begin" + "x" * 100_000 + "end")))

    assert len(read.__cause__.text) < 20_000
    assert "characters left out" in read.__cause__.text
    assert read.__cause__.text.endswith("end\n")


def test_an_error_that_is_not_registered_comes_back_as_a_remote_error(codec: Codec) -> None:
    error = raised(OutOfStockError("tea", left=1))
    error.add_note("note")

    read = come_back(codec, error)

    assert isinstance(read, RemoteError)
    assert read.type_name == f"{OutOfStockError.__module__}:OutOfStockError"
    assert read.message == "no tea left but 1"
    assert read.notes == read.__notes__ == ["note"]
    assert "in raised" in str(read.traceback_text)
    assert str(read) == f"{OutOfStockError.__module__}:OutOfStockError: no tea left but 1"


def test_a_remote_error_is_caught_as_its_nearest_known_ancestor(codec: Codec, types: TypeRegistry) -> None:
    types.register(OutOfStockError)

    assert isinstance(come_back(codec, json.JSONDecodeError("x", "y", 0)), ValueError)
    assert isinstance(come_back(codec, SoldOutError("tea", left=1)), OutOfStockError)
    assert isinstance(come_back(codec, DiskError("/data")), OSError)


def test_a_remote_error_that_came_back_pickles_and_is_recorded_again(codec: Codec, types: TypeRegistry) -> None:
    read = come_back(codec, raised(json.JSONDecodeError("x", "y", 0)))

    for twin in (pickle.loads(pickle.dumps(read)), copy.copy(read), come_back(codec, read)):
        assert isinstance(twin, RemoteError)
        assert isinstance(twin, ValueError)
        assert twin.type_name == "json.decoder:JSONDecodeError"
        assert str(twin) == str(read)


def test_the_text_of_a_remote_error_needs_nothing_of_its_ancestor(codec: Codec, types: TypeRegistry) -> None:
    types.register(ShopError)
    error = type("ThisShopError", (ShopError,), {})()
    error.needed = "tea"

    read = come_back(codec, error)

    assert isinstance(read, ShopError)
    assert str(read).endswith("ThisShopError: shop: tea")


def test_an_error_whose_arguments_cannot_be_recorded_comes_back_as_a_remote_error(codec: Codec) -> None:
    read = come_back(codec, ValueError("no", object()))

    assert isinstance(read, RemoteError)
    assert isinstance(read, ValueError)
    assert read.type_name == "ValueError"
    assert "'no'" in read.message


def test_only_what_cannot_be_recorded_of_an_error_is_left_out(codec: Codec, types: TypeRegistry) -> None:
    types.register(OutOfStockError)
    error = OutOfStockError("tea", left=1)
    vars(error)["connection"] = object()

    read = come_back(codec, error)

    assert vars(read) == {"item": "tea", "left": 1}


@pytest.mark.parametrize("kind", [BrokenTextError, StrictError, ShopError], ids=lambda kind: kind.__name__)
def test_an_error_that_misbehaves_is_recorded_all_the_same(
    codec: Codec, types: TypeRegistry, kind: type[BaseException]
) -> None:
    types.register(kind)
    error = kind("secret")
    error.args = ("other",)

    read = come_back(codec, raised(error))

    assert isinstance(read, RemoteError)
    assert read.type_name == f"{kind.__module__}:{kind.__name__}"


def test_an_error_that_holds_itself_is_recorded(codec: Codec) -> None:
    error = ValueError("no")
    vars(error)["self"] = error
    vars(error)["list"] = [error, error]

    assert come_back(codec, error).args == ("no",)


def test_an_error_that_only_just_has_no_room_comes_back_as_a_remote_error(codec: Codec) -> None:
    nested: list[object] = []
    for _ in range(DEEPEST - 1):
        nested = [nested]

    read = come_back(codec, raised(ValueError(nested)))

    assert isinstance(read, RemoteError)
    assert read.type_name == "ValueError"
    assert "in raised" in str(read.traceback_text)


def test_a_cancelled_task_is_recorded(codec: Codec) -> None:
    read = come_back(codec, asyncio.CancelledError("shutdown"))

    assert isinstance(read, RemoteError)
    assert read.type_name == "asyncio.exceptions:CancelledError"


@pytest.mark.parametrize("payload", ["1", "{}", '{"type":1}', "[]", '"text"'])
def test_a_payload_that_is_no_error_raises_the_error_of_this_library(codec: Codec, payload: str) -> None:
    with pytest.raises(SerializationError, match="record of an error"):
        codec.decode_error(payload, codec.name)


def test_a_record_written_by_hand_is_read(codec: Codec) -> None:
    read = codec.decode_error('{"type": "other:Oops", "message": "no"}', codec.name)

    assert isinstance(read, RemoteError)
    assert (read.type_name, read.message, read.traceback_text) == ("other:Oops", "no", None)


def test_reading_an_error_imports_no_module(codec: Codec) -> None:
    read = codec.decode_error('{"type": "this:Zen", "message": "", "args": []}', codec.name)

    assert isinstance(read, RemoteError)
    assert "this" not in sys.modules


def test_pickle_keeps_an_error_whole_and_what_cannot_be_unpickled_as_a_record() -> None:
    codec = Codec(PickleSerializer())
    error = OutOfStockError("tea", left=1)
    fresh = datetime.now(UTC)

    assert vars(come_back(codec, raised(SilentError(4)))) == {"value": 4}
    assert come_back(codec, raised(ValueError(fresh))).args == (fresh,)
    assert isinstance(come_back(codec, raised(error)), RemoteError)
    assert isinstance(come_back(codec, raised(ValueError(lambda: 1))), RemoteError)
    assert "in raised" in come_back(codec, raised(SilentError(4))).__cause__.text
