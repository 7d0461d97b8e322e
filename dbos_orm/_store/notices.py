"""Telling other processes, where the database passes notices on."""

from __future__ import annotations

import hashlib
from typing import Final

from sqlalchemy import Text, bindparam, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ClauseElement

from dbos_orm._dialects import Dialect

LONGEST_NOTICE_BYTES: Final = 7_900
"""PostgreSQL refuses 8,000: https://www.postgresql.org/docs/current/sql-notify.html"""


def channel_of(application: str, dialect: Dialect) -> str:
    """The channel of an application's processes whose tables are the same; it needs no quoting."""
    schema = (dialect.schemas or {}).get(None) or ""
    name = f"{application}\x00{schema}".encode()
    return f"dbos_{hashlib.sha256(name).hexdigest()[:20]}"


def notify(connection: Connection, dialect: Dialect, channel: str, text: str) -> None:
    """Tell everybody who listens on a channel, in a transaction of its own; ``text`` has at most
    ``LONGEST_NOTICE_BYTES``.

    A notice is not kept: who does not listen now never hears of it. The commit of a transaction that has written
    nothing else waits neither for the disk nor for a standby, although the notice gives it an ID.
    """
    statement = dialect.prepared("notify", _notify)
    statement.execute(connection, {"channel": channel, "text": text})


def _notify() -> ClauseElement:
    return select(func.pg_notify(bindparam("channel", type_=Text()), bindparam("text", type_=Text())))
