"""What every error of the library is."""

from __future__ import annotations

from collections.abc import Sequence

from dbos_orm._portable_errors import Reduced, reduced


class DBOSError(Exception):
    """Anything that this library reports; catch it to catch all of them."""

    def __reduce__(self) -> Reduced:
        return reduced(self, stand_in)


class RemoteError(DBOSError):
    """A recorded error came back whose type, ``type_name`` ("module:qualified name"), is not registered here.

    ``traceback_text`` is the original's; its notes are notes of this error too, and print with it.
    """

    def __init__(
        self, type_name: str, message: str, traceback_text: str | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.type_name, self.message = type_name, message
        self.traceback_text, self.notes = traceback_text, list(notes)
        super().__init__(f"{type_name}: {message}" if message else type_name)
        for note in notes:
            self.add_note(note)


def stand_in(error: BaseException) -> BaseException:
    return RemoteError(f"{type(error).__module__}:{type(error).__qualname__}", str(error))
