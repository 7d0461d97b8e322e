"""The databases that the library works on."""

from dbos_orm._dialects._base import Dialect, Fault
from dbos_orm._dialects._engines import dialect_of, own_engine
from dbos_orm._dialects._listening import Listener, open_listener
from dbos_orm._dialects._prepared import AnyConnection, DirectConnection, Prepared, driver_transaction
from dbos_orm._dialects._sqlite import prepare_sqlite_connections, require_sqlite_file, sqlite_engine
from dbos_orm._dialects._watching import FileWatch, open_watch

__all__ = [
    "AnyConnection",
    "Dialect",
    "DirectConnection",
    "Fault",
    "FileWatch",
    "Listener",
    "Prepared",
    "dialect_of",
    "driver_transaction",
    "open_listener",
    "open_watch",
    "own_engine",
    "prepare_sqlite_connections",
    "require_sqlite_file",
    "sqlite_engine",
]
