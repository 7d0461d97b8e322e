"""The codec: which serializer reads which row, arguments, and what goes wrong."""

from __future__ import annotations

import base64
import inspect
import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from dbos_orm.errors import SerializationError
from dbos_orm.serialization import Codec, JSONSerializer, PickleSerializer, Serializer, TypeRegistry
from dbos_orm.serialization._encoding import DEEPEST


@dataclass
class Money:
    cents: int


class Reversing:
    """Stands for encryption: JSON that nobody can read without this class."""

    name = "reversing"

    def __init__(self, inner: Serializer) -> None:
        self._inner = inner

    def dumps(self, value: object) -> str:
        return json.dumps(self._inner.dumps(value)[::-1])

    def loads(self, payload: str) -> object:
        return self._inner.loads(json.loads(payload)[::-1])


class Failing:
    name = "failing"

    def dumps(self, value: object) -> str:
        raise OSError("no key")

    def loads(self, payload: str) -> object:
        raise OSError("no key")


@pytest.fixture
def types() -> TypeRegistry:
    return TypeRegistry()


@pytest.fixture
def codec(types: TypeRegistry) -> Codec:
    return Codec(JSONSerializer(types))


def charge(order_id: int, amount: Any, /, *rest: Any, note: Any = "", **more: Any) -> None: ...


def reserve(order_id: int, amount: Any = None) -> None: ...


RESERVE = inspect.signature(reserve)
CHARGE = inspect.signature(charge)


def test_a_row_is_read_by_the_serializer_that_it_names(types: TypeRegistry) -> None:
    serializers: list[Serializer] = [
        JSONSerializer(types),
        PickleSerializer(),
        Reversing(JSONSerializer(types)),
    ]
    reader = Codec(serializers[0], serializers[1:])
    value = {"a": (1, 2.5)}

    for serializer in serializers:
        writer = Codec(serializer)
        payload = writer.encode(value, root="result")
        json.loads(payload)
        assert reader.decode(payload, writer.name) == value
    assert reader.types is types


def test_json_is_read_also_where_another_serializer_writes(codec: Codec) -> None:
    assert Codec(PickleSerializer()).decode(codec.encode((1,), root="r"), "json") == (1,)


def test_pickle_is_not_read_unless_it_was_asked_for(codec: Codec) -> None:
    payload = Codec(PickleSerializer()).encode(Fraction(1, 2), root="result")

    with pytest.raises(SerializationError, match="serializer 'pickle'; known: 'json'"):
        codec.decode(payload, "pickle")


def test_pickle_records_what_json_refuses(codec: Codec) -> None:
    pickling = Codec(PickleSerializer())

    payload = pickling.encode(Fraction(1, 2), root="result")

    assert base64.b64decode(json.loads(payload)).startswith(b"\x80\x05")
    assert pickling.decode(payload, "pickle") == Fraction(1, 2)
    with pytest.raises(SerializationError, match="result: function; it cannot be pickled"):
        pickling.encode(lambda: 1, root="result")
    with pytest.raises(SerializationError, match="it cannot be read"):
        pickling.decode('"gAWV"', "pickle")


def test_a_path_begins_with_the_root_also_through_a_wrapped_serializer(types: TypeRegistry) -> None:
    codec = Codec(Reversing(JSONSerializer(types)))

    with pytest.raises(SerializationError) as caught:
        codec.encode({"price": Money(1)}, root="message")

    assert caught.value.path == "message.price"
    assert str(caught.value).startswith("message.price: Money; ")


def test_a_serializer_that_fails_is_named() -> None:
    codec = Codec(Failing())

    with pytest.raises(SerializationError, match="result: int; serializer 'failing' cannot write it: OSError: no key"):
        codec.encode(1, root="result")
    with pytest.raises(SerializationError, match="serializer 'failing' cannot read it: OSError: no key"):
        codec.decode("1", "failing")
    with pytest.raises(SerializationError, match=r"arguments\.order_id: int; serializer 'failing'"):
        codec.encode_arguments((1,), {}, signature=RESERVE)


def test_errors_go_through_the_serializer_of_the_application(types: TypeRegistry) -> None:
    codec = Codec(Reversing(JSONSerializer(types)))

    payload = codec.encode_error(ValueError("secret"))

    assert "secret" not in payload
    assert codec.decode_error(payload, codec.name).args == ("secret",)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1, 2), {}), ((1,), {"amount": 2}), ((), {"amount": 2, "order_id": 1})],
    ids=["by position", "mixed", "by name"],
)
def test_the_same_arguments_are_the_same_text_however_the_call_is_spelled(
    codec: Codec, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    payload = codec.encode_arguments(args, kwargs, signature=RESERVE)

    assert payload == '{"args":[1,2],"kwargs":{}}'
    assert codec.decode_arguments(payload, codec.name) == ((1, 2), {})


def test_defaults_are_not_recorded(codec: Codec) -> None:
    assert codec.encode_arguments((1,), {}, signature=RESERVE) == '{"args":[1],"kwargs":{}}'


def test_arguments_that_a_function_does_not_take_are_refused_at_the_call(codec: Codec) -> None:
    with pytest.raises(TypeError, match="too many positional arguments"):
        codec.encode_arguments((1, 2, 3), {}, signature=RESERVE)
    with pytest.raises(TypeError, match="missing a required argument: 'order_id'"):
        codec.encode_arguments((), {}, signature=RESERVE)


@pytest.mark.parametrize(
    ("args", "kwargs", "signature", "path"),
    [
        ((1, Money(1)), {}, RESERVE, "arguments.amount"),
        ((), {"amount": [Money(1)], "order_id": 1}, RESERVE, "arguments.amount[0]"),
        ((1, 2, 3, Money(1)), {}, CHARGE, "arguments[3]"),
        ((1, 2), {"note": Money(1)}, CHARGE, "arguments.note"),
        ((1, 2), {"other": {"a b": Money(1)}}, CHARGE, "arguments.other['a b']"),
        ((1, Money(1)), {}, None, "arguments[1]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_path_of_a_refused_argument_names_its_parameter(
    codec: Codec,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    signature: inspect.Signature | None,
    path: str,
) -> None:
    with pytest.raises(SerializationError) as caught:
        codec.encode_arguments(args, kwargs, signature=signature)

    assert caught.value.path == path


def test_an_argument_that_only_just_has_no_room_is_refused(codec: Codec) -> None:
    value: list[Any] = []
    for _ in range(DEEPEST):
        value = [value]
    assert codec.encode(value, root="result")

    with pytest.raises(SerializationError, match="nested deeper") as caught:
        codec.encode_arguments((value,), {}, signature=None)

    assert caught.value.path.startswith("arguments.args[0][0]")


@pytest.mark.parametrize("payload", ["[]", "{}", '{"args":{},"kwargs":{}}', '{"args":[],"kwargs":[]}'])
def test_a_payload_that_holds_no_arguments_raises_the_error_of_this_library(codec: Codec, payload: str) -> None:
    with pytest.raises(SerializationError, match="expected"):
        codec.decode_arguments(payload, codec.name)


def test_keyword_arguments_that_look_like_a_tag_come_back(codec: Codec) -> None:
    payload = codec.encode_arguments((), {"$date": 1}, signature=None)

    assert codec.decode_arguments(payload, codec.name) == ((), {"$date": 1})


def test_the_registry_of_a_codec_without_json_can_be_given(types: TypeRegistry) -> None:
    types.register(Money)

    assert Codec(PickleSerializer(), types=types).types is types
    assert Codec(PickleSerializer(), types=types).decode(f'{{"${__name__}:Money":{{"cents":1}}}}', "json") == Money(1)


def test_the_digest_of_arguments_does_not_depend_on_the_serializer(types: TypeRegistry) -> None:
    codecs = [Codec(JSONSerializer(types)), Codec(PickleSerializer(), types=types), Codec(Failing(), types=types)]
    digests = {codec.digest_of_arguments((1, {"b", "a", "c"}), {"note": "x"}) for codec in codecs}
    (digest,) = digests
    assert digest is not None
    assert len(digest) == 16
    assert codecs[0].digest_of_arguments((1, {"b", "a", "c"}), {"note": "y"}) != digest


def test_arguments_that_cannot_be_written_have_no_digest(codec: Codec) -> None:
    assert codec.digest_of_arguments((1, object()), {}) is None
