"""``DBOS``: durable workflows for synchronous code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from math import inf
from types import TracebackType
from typing import Any, Self

from dbos_orm import _launching
from dbos_orm._application import AnyDBOS
from dbos_orm._binds import SyncBind, resolve_sync
from dbos_orm._queue_settings import NamedQueue, queue_names
from dbos_orm._sync_operations import SyncOperations
from dbos_orm.config import Config, Duration, seconds

__all__ = ["DBOS"]


class DBOS(SyncOperations, AnyDBOS):
    """A durable application on your own ``Engine``: made, then bound, then launched.

    Made, functions can be registered, so that it can be done at import. Bound (``bind``, or given here), it
    can start and query workflows; no thread runs, and the process may fork. Launched, it executes: its
    own workflows, those of dead processes, and those that wait. ``with dbos.launch():`` ends with
    ``shutdown()``; afterwards it may be launched again.

    Without a bind it takes DBOS_DATABASE_URL, else the SQLite file ``dbos.sqlite`` in the working directory.
    ``modules`` are imported at launch. ``run_context`` makes a context manager that is entered around each run on a
    thread of the library's, for example ``app.app_context`` of Flask.
    """

    def __init__(
        self,
        bind: SyncBind | None = None,
        *,
        name: str,
        modules: Sequence[str] = (),
        run_context: Callable[[], AbstractContextManager[Any]] | None = None,
        config: Config | None = None,
    ) -> None:
        super().__init__(
            name=name, modules=modules, run_context=run_context, config=Config() if config is None else config
        )
        self._given = bind
        if bind is not None:
            self._runtime.bind_given = lambda: self.bind(bind)

    def bind(self, bind: SyncBind) -> Self:
        """Give the application its database: an Engine, a sessionmaker, a scoped_session or a URL.

        Raises:
            ConfigurationError: the bind cannot work, or the application is launched.
        """
        self._bind(resolve_sync(bind, self._runtime.application.surroundings))
        self._given = bind
        self._runtime.bind_given = lambda: self.bind(bind)
        return self

    def launch(
        self,
        bind: SyncBind | None = None,
        *,
        queues: Sequence[NamedQueue | str] | None = None,
        migrate: bool | None = None,
        inline: bool = False,
    ) -> Self:
        """Execute workflows in this process, beginning with those that dead processes left.

        ``queues``: take work only from these, by default from all; what was started without a queue is always taken.
        ``migrate``: bring the tables to this version's schema first; by default only the SQLite file that is
        used when nothing is given is migrated, and elsewhere ``dbos-orm migrate`` is yours to run. ``inline``: on a
        Connection, for tests that roll back: no thread, nothing is committed, and what is started runs in ``drain``.

        Raises:
            ConfigurationError: it is launched already, or the engine's settings would break the guarantees.
            DatabaseUnavailableError: the database did not answer within ``Config.launch_timeout``.
            SchemaVersionError: the tables are missing, older or newer.
            QueueNotFoundError: ``queues`` names one that neither code nor the database has.
        """
        self._refuse_second_launch()
        served = queue_names(queues)
        if bind is not None:
            self.bind(bind)
        elif self._runtime.binding is None:
            self._bind(resolve_sync(self._given, self._runtime.application.surroundings))
        binding = self._runtime.bound("launch()")
        try:
            self._require_inline(inline=inline)
            if inline:
                self._launch_inline(migrate=migrate)
                return self
            _launching.reach(binding)
            _launching.probe(binding)
            self._launch(migrate=migrate, served=served)
        except BaseException:
            self._unbind()
            raise
        return self

    def drain(self, timeout: Duration | None = None) -> int:
        """Of an inline launch: run here what is ready, and what that makes ready; give how many workflows ran.

        ``timeout``: begin no further one after it. Waiting for a result drains by itself.

        Raises:
            NotLaunchedError: the application is not launched inline.
        """
        return self._inline_work().drain(inf if timeout is None else seconds(timeout, field="timeout"))

    def shutdown(self, timeout: Duration = 30) -> None:
        """Stop: wait up to ``timeout`` for running workflows, then hand the rest to other processes.

        They continue from their last recorded step. Steps that still run here are not interrupted; their
        results are dropped. Without a launch it only closes the library's connections.
        """
        self.shut_down(timeout)

    def __enter__(self) -> Self:
        return self if self.is_launched else self.launch()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Who leaves by Ctrl-C does not want to wait for workflows: others, or the next launch, continue them.
        self.shutdown(0 if kind is not None and not issubclass(kind, Exception) else 30)
