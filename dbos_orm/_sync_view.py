"""Synchronous workflows in an asynchronous application."""

from __future__ import annotations

from typing import Any

from dbos_orm._runtime import Runtime
from dbos_orm._settings import TransactionSettings
from dbos_orm._sync_operations import SyncOperations
from dbos_orm.config import Config
from dbos_orm.errors import ConfigurationError
from dbos_orm.serialization import TypeRegistry


class SyncView(SyncOperations):
    """The decorators and operations for plain functions, on an application of coroutines: one name, one database.

    Its workflows run on worker threads, and are called and started from threads: on the thread of an event loop every
    operation raises ``ConfigurationError``, where it would wait for what that loop has to do. Transactions need a
    ``sessionmaker`` of a synchronous engine. Binding and launching is the application's.
    """

    def __init__(self, *, name: str, config: Config, types: TypeRegistry, runtime: Runtime) -> None:
        self.name = name
        self.config = config
        self.types = types
        self._runtime = runtime

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name!r}>"

    def _transaction_settings(self, options: dict[str, Any], *, is_async: bool) -> TransactionSettings:
        if options.get("sessionmaker") is None:
            raise ConfigurationError(
                "sessionmaker",
                None,
                "a sessionmaker of a synchronous engine, for a transaction of adbos.sync",
                "write @adbos.sync.transaction(sessionmaker=sessionmaker(engine))",
            )
        return super()._transaction_settings(options, is_async=is_async)
