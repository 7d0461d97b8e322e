"""How arguments, results, messages and errors become text in the database, and values again.

The text is JSON. Whatever it accepts comes back equal and of the same type; everything else is refused
when it is recorded, with the path to it and what to do. Reading imports no module and constructs no class
that the application did not register, so that a row cannot make a process execute anything.

Without registration: ``None, bool, int, float, str, list, dict, tuple, set, frozenset, bytes, bytearray,
datetime, date, time, timedelta, Decimal, UUID``, of exactly these types. With it (``TypeRegistry``; the
annotations of registered functions count): dataclasses, NamedTuples, enums, pydantic models, exceptions,
and any class for which the application gives two functions.
"""

from __future__ import annotations

from dbos_orm.serialization._codec import Codec
from dbos_orm.serialization._error_records import RaisedElsewhereError
from dbos_orm.serialization._json import JSONSerializer
from dbos_orm.serialization._pickle import PickleSerializer
from dbos_orm.serialization._serializer import Serializer
from dbos_orm.serialization._types import TypeRegistry

__all__ = [
    "Codec",
    "JSONSerializer",
    "PickleSerializer",
    "RaisedElsewhereError",
    "Serializer",
    "TypeRegistry",
]
