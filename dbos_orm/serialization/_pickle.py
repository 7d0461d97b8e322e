"""The serializer for those who ask for it."""

from __future__ import annotations

import base64
import json
import pickle

from dbos_orm.errors import SerializationError
from dbos_orm.serialization._refusal import ROOT


class PickleSerializer:
    """Records almost anything, as base64 of a pickle in a JSON string.

    Reading a pickle runs what it says: whoever can write to the tables can run code in every process
    that reads them. Used only by an application that names it; rows are not readable in SQL, by other
    languages, or after a class was moved.
    """

    name = "pickle"

    def dumps(self, value: object) -> str:
        """Write ``value``; raises ``SerializationError`` for what cannot be pickled."""
        try:
            pickled = pickle.dumps(value, protocol=5)
        except Exception as error:
            raise SerializationError(
                ROOT, type(value).__qualname__, f"it cannot be pickled: {type(error).__name__}: {error}"
            ) from error
        return f'"{base64.b64encode(pickled).decode("ascii")}"'

    def loads(self, payload: str) -> object:
        """Read what ``dumps`` wrote, and run what the pickle says; raises ``SerializationError``."""
        try:
            return pickle.loads(base64.b64decode(json.loads(payload), validate=True))
        except Exception as error:
            raise SerializationError(
                "payload", "pickle", f"it cannot be read: {type(error).__name__}: {error}"
            ) from error
