"""An application bound to its database: everything that can start, query and wait, without executing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import async_scoped_session
from sqlalchemy.orm import scoped_session

from dbos_orm._clock import Clock
from dbos_orm._context import Run
from dbos_orm._dialects import Dialect, dialect_of, own_engine
from dbos_orm._drivers.active_runs import ActiveRuns
from dbos_orm._drivers.async_driver import AsyncDriver
from dbos_orm._drivers.committer import Committer, EntryWriter
from dbos_orm._drivers.databases import Databases
from dbos_orm._drivers.gateway import Gateway
from dbos_orm._drivers.hints import Hints
from dbos_orm._drivers.service_loop import AsyncGateway, ServiceLoop
from dbos_orm._drivers.sessions import Database, SessionSource
from dbos_orm._drivers.sync_driver import SyncDriver
from dbos_orm._drivers.telling import Telling
from dbos_orm._drivers.worker_threads import WorkerThreads
from dbos_orm._flows.effects import RunBody, Spawn
from dbos_orm._flows.environment import Environment
from dbos_orm._identifiers import IdentifierSource
from dbos_orm._registry import RegisteredWorkflow, Registry
from dbos_orm._surroundings import NOTHING, Surroundings
from dbos_orm.config import Config
from dbos_orm.serialization import Codec


@dataclass(frozen=True, slots=True)
class Application:
    """What an application is before it has a database."""

    name: str
    config: Config
    clock: Clock
    codec: Codec
    registry: Registry
    identifiers: IdentifierSource
    surroundings: Surroundings = NOTHING


@dataclass(slots=True)
class Binding:
    """One application on one database. ``engine`` is the user's; the pool behind ``gateway`` is the library's."""

    application: Application
    environment: Environment
    engine: Engine
    gateway: Gateway
    heartbeat_gateway: Gateway
    committer: EntryWriter
    runs: ActiveRuns
    threads: WorkerThreads
    databases: Databases
    hints: Hints
    driver: SyncDriver
    async_driver: AsyncDriver | None = None
    service_loop: ServiceLoop | None = None

    @property
    def dialect(self) -> Dialect:
        """What is known about the database."""
        return self.environment.dialect

    @property
    def free(self) -> int:
        """How many more workflows this process may take from the database now."""
        if self.async_driver is None:
            return self.threads.free
        room = (
            max(0, self.environment.config.async_workflows + self.async_driver.lent - len(self.runs))
            if self.async_driver.can_spawn
            else 0
        )
        # With no thread free only coroutines are claimed (``takes``), and those have room.
        return min(room, self.threads.free or room) if self.environment.registry.has_plain_workflows else room

    @property
    def capacity(self) -> int:
        """How many workflows this process runs at the same time, of those that it takes from the database."""
        limit = self.environment.config.worker_threads
        if self.async_driver is None:
            return limit
        room = self.environment.config.async_workflows
        return min(room, limit) if self.environment.registry.has_plain_workflows else room

    def takes(self, workflow: RegisteredWorkflow) -> bool:
        """Whether there is a place for this kind of workflow: a coroutine needs no thread."""
        return workflow.is_async or self.async_driver is None or self.threads.free > 0

    def spawn(self, run: Run, body: RunBody) -> None:
        """Execute an owned run in the background, on threads or on the event loop as its function wants it."""
        if run.is_async:
            assert self.async_driver is not None
            self.async_driver.spawn(Spawn(run, body))
        else:
            self.driver.perform(Spawn(run, body))

    def close(self) -> None:
        """Close the library's connections and threads. The user's engine stays as it is."""
        self.threads.close()
        if self.service_loop is not None:
            # What is under way gives its connection back to a pool that is still open.
            self.service_loop.drain()
        self.gateway.blocking(self.committer.close)
        self.gateway.close()
        self.heartbeat_gateway.close()
        if self.service_loop is not None:
            self.service_loop.stop()

    def forget(self) -> None:
        """In a forked child, drop what belongs to the parent without touching it."""
        self.gateway.forget()
        self.heartbeat_gateway.forget()


def environment_of(application: Application, dialect: Dialect, runs: ActiveRuns) -> Environment:
    """What flows know of an application on a database."""
    return Environment(
        application.name,
        application.config,
        application.clock,
        application.codec,
        application.registry,
        dialect,
        application.identifiers,
        runs.drop,
        application.surroundings,
    )


def bind(
    application: Application,
    engine: Engine,
    factory: Callable[..., Any],
    registry: scoped_session[Any] | async_scoped_session[Any] | None = None,
) -> Binding:
    """Bind an application to an engine.

    ``factory`` makes the sessions of transactional steps; ``registry`` is lent them. An engine with an
    asynchronous driver (``AsyncEngine.sync_engine``) gets a service loop.

    Raises:
        ConfigurationError: the database is not supported.
    """
    config = application.config
    dialect = dialect_of(engine, application.clock, config)
    pool, heartbeat_pool = (
        own_engine(engine, dialect, size=config.pool_size + 1),
        own_engine(engine, dialect, size=1),
    )
    loop: ServiceLoop | None = None
    if engine.dialect.is_async:
        loop = ServiceLoop(f"dbos-{application.name}-loop")
        gateway: Gateway = AsyncGateway(pool, dialect, config, loop)
        heartbeat_gateway: Gateway = AsyncGateway(heartbeat_pool, dialect, config, loop)
    else:
        gateway, heartbeat_gateway = Gateway(pool, dialect, config), Gateway(heartbeat_pool, dialect, config)
    # One line for everybody in this process who is about to write.
    heartbeat_gateway.writer = gateway.writer
    runs = ActiveRuns()
    environment = environment_of(application, dialect, runs)
    committer = Committer(gateway, config, runs.drop)
    threads = WorkerThreads(config.worker_threads, f"dbos-{application.name}")
    own = Database(is_own=True, writer=gateway.writer if dialect.single_writer else None)
    databases = Databases(gateway, config, SessionSource(factory, engine, dialect, own, registry))
    hints = Hints(Telling(gateway, application.name) if dialect.can_listen else None)
    binding = Binding(
        application,
        environment,
        engine,
        gateway,
        heartbeat_gateway,
        committer,
        runs,
        threads,
        databases,
        hints,
        SyncDriver(environment, gateway, committer, runs, threads, databases, hints),
        service_loop=loop,
    )
    if isinstance(gateway, AsyncGateway):
        binding.async_driver = AsyncDriver(environment, gateway, committer, runs, databases, hints)
    return binding
