"""Binding, launching and shutting down: the steps that both colours of application share."""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy.engine import Connection

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Launch, logger
from dbos_orm._dialects import Fault
from dbos_orm._drivers.binding import Binding
from dbos_orm._drivers.inline import InlineAsyncDriver, InlineBinding, InlineSyncDriver
from dbos_orm._identifiers import executor_id
from dbos_orm._runtime import Runtime
from dbos_orm._services.dispatch import Dispatch
from dbos_orm._services.dispatcher import DispatcherService
from dbos_orm._services.hints import hint_services
from dbos_orm._services.inline import InlineWork
from dbos_orm._services.intake import Intake
from dbos_orm._services.leases import LeaseObserver, LeaseService, new_executor_id
from dbos_orm._services.recovery import Recovery
from dbos_orm._services.scheduler import CronService, declare_schedules
from dbos_orm._services.service import Service
from dbos_orm._services.tick import TickService
from dbos_orm._store import executors, ownership, queues
from dbos_orm._store.revision import require_current_schema, schema_revision
from dbos_orm.config import seconds
from dbos_orm.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    OwnershipLost,
    QueueNotFoundError,
    SchemaVersionError,
)

_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 2.0


@dataclass(slots=True)
class Launched:
    """What ``shutdown`` has to stop again."""

    launch: Launch
    services: Sequence[Service]
    leases: LeaseService | None = None
    hints: Sequence[Service] = ()
    inline: InlineWork | None = None


def launch(runtime: Runtime, *, modules: Iterable[str], migrate: bool, served: Sequence[str] | None = None) -> Launched:
    """Begin to execute workflows, on a database that was reached and probed.

    Raises:
        SchemaVersionError: the tables are missing, older or newer.
    """
    binding = runtime.bound("launch()")
    env = binding.environment
    for module in modules:
        importlib.import_module(module)
    _require_schema(binding, migrate=migrate)
    _declare_queues(binding, served)
    name = new_executor_id(env.config)
    started = Launch(name, lease_ends=steady_seconds() + seconds(env.config.lease), owner=runtime)
    leases = LeaseService(binding, started)
    leases.register()
    try:
        intake = Intake(binding, started)
        recovery = Recovery(binding, intake, LeaseObserver(leases))
        dispatch = Dispatch(binding, intake, served)
        dispatcher = DispatcherService(binding, started, intake, dispatch)
        cron = CronService(binding)
        tick = TickService(binding, started, recovery, intake, dispatcher, cron)
        asked_at, overview = steady_seconds(), tick.look()
        recovery.expire_dead(overview)  # now, so that their workflows count as interrupted in the report
        dispatcher.see(overview, asked_at)
        _report(binding, started)
        declare_schedules(binding)
    except BaseException:
        _leave(binding, started)
        raise
    runtime.launch = started
    binding.runs.ended = dispatcher.has_ended
    binding.threads.freed = dispatcher.has_room
    if binding.async_driver is not None:
        binding.async_driver.freed = dispatcher.has_room
    binding.hints.dispatcher = dispatcher.look_for
    binding.hints.look_everywhere = dispatcher.look_everywhere
    hints = hint_services(binding)
    runtime.look_for_slots = cron.wake
    runtime.places = dispatch
    for service in (leases, tick, dispatcher, *hints, cron):
        service.start()
    return Launched(started, (cron, dispatcher, tick), leases, hints)


def launch_inline(runtime: Runtime, *, modules: Iterable[str], migrate: bool) -> Launched:
    """Begin to execute workflows on the caller's connection and stack; raises as ``launch``."""
    binding = runtime.bound("launch()")
    assert isinstance(binding, InlineBinding)
    for module in modules:
        importlib.import_module(module)
    _require_savepoints(binding)
    _require_schema(binding, migrate=migrate)
    _declare_queues(binding, None)
    started = Launch(executor_id(), lease_ends=math.inf, owner=runtime, is_inline=True)
    declare_schedules(binding)
    work = InlineWork(binding, started)
    if isinstance(binding.driver, InlineSyncDriver):
        binding.driver.work = work.drain
    if isinstance(binding.async_driver, InlineAsyncDriver):
        binding.async_driver.work = work.drain_async
    runtime.launch = started
    return Launched(started, (), inline=work)


def _require_savepoints(binding: InlineBinding) -> None:
    """Refuse a connection on which nothing could be rolled back.

    Raises:
        ConfigurationError: it is in autocommit.
    """
    connection = binding.gateway.connection
    if not connection.in_transaction():
        connection.begin()
    if binding.dialect.is_autocommit(connection):
        raise ConfigurationError(
            "bind", str(connection.engine.url), "a connection with transactions", "leave AUTOCOMMIT out"
        )


def shutdown(runtime: Runtime, launched: Launched, timeout: float) -> None:
    """Stop taking work, wait for what runs, hand over the rest, and leave the executors.

    Results of what still runs then are dropped: somebody else produces them.
    """
    if launched.inline is not None:
        launched.launch.is_over = True
        return
    binding = runtime.bound("shutdown()")
    assert launched.leases is not None
    runtime.look_for_slots = runtime.places = None
    binding.hints.dispatcher = binding.hints.look_everywhere = None
    for service in launched.hints:
        service.stop()
    try:
        for service in launched.services:
            service.stop()
        binding.runs.wait_until_none(timeout)
    finally:
        # From here on nobody waits for an outcome of ours: callers learn that the launch is over.
        launched.launch.is_over = True
        try:
            _hand_over_all(binding)
        finally:
            launched.leases.stop()
            _leave(binding, launched.launch)


def _leave(binding: Binding, launch: Launch) -> None:
    try:
        binding.gateway.change(partial(executors.remove, executor_id=launch.executor_id))
    except DatabaseUnavailableError as error:
        logger.warning("the database is away at shutdown; others will notice: %s", error)


def _hand_over_all(binding: Binding) -> None:
    runs = [*binding.runs.all(), *binding.runs.dropped]
    for run in runs:
        run.end_with(OwnershipLost(run.workflow_id))
    owned = [(run.workflow_id, run.owner_token) for run in runs]
    try:
        for start in range(0, len(owned), 500):
            verb = partial(ownership.hand_over, dialect=binding.dialect, owned=owned[start : start + 500])
            binding.gateway.change(verb)
    except DatabaseUnavailableError as error:
        logger.warning("the database is away at shutdown; leases decide: %s", error)
    if owned:
        logger.info("%d running workflows were handed over", len(owned))


def reach(binding: Binding) -> None:
    """Wait for the database, and say so while that takes.

    Raises:
        DatabaseUnavailableError: it did not answer within ``launch_timeout``, or refuses us.
    """
    config, url = binding.environment.config, binding.engine.url.render_as_string()
    limit = seconds(config.launch_timeout)
    began, pause, said = time.monotonic(), _FIRST_PAUSE_SECONDS, -math.inf
    while True:
        try:
            binding.gateway.read_once(_ping)
            return
        except Exception as error:
            waited = time.monotonic() - began
            if binding.dialect.fault(error) is Fault.REJECTED or waited + pause > limit:
                raise DatabaseUnavailableError(url, round(waited, 1), error) from error
            if waited >= 2 * said:
                said = max(waited, 1.0)
                logger.warning(
                    "%s; trying for %.0f s more", DatabaseUnavailableError(url, waited, error), limit - waited
                )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def probe(binding: Binding) -> None:
    """Try whether the user's engine keeps the guarantees, on its own connections and in its own event loop.

    Raises:
        ConfigurationError: it names what is missing.
    """
    missing = list(binding.dialect.probe(binding.engine))
    if missing:
        raise ConfigurationError(
            "engine",
            binding.engine.url.render_as_string(),
            "settings that keep the guarantees; " + "; ".join(missing),
            binding.dialect.remedy,
        )


def _ping(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT 1")


def _declare_queues(binding: Binding, served: Sequence[str] | None) -> None:
    """Fill in the rows of queues, and say where they differ from the code.

    Raises:
        QueueNotFoundError: this launch is to serve a queue that nobody has declared.
    """
    env = binding.environment
    declare = partial(queues.declare, dialect=env.dialect, application=env.application, settings=env.registry.queues)
    for difference in binding.gateway.change(declare):
        logger.info("queue %r: %s", difference.queue, difference)
    if served is not None:
        known = binding.gateway.read(partial(queues.names, application=env.application))
        for name in served:
            if name not in known:
                raise QueueNotFoundError(name, known)


def _require_schema(binding: Binding, *, migrate: bool) -> None:
    if not migrate:
        binding.gateway.read(require_current_schema)
        return
    revision = binding.gateway.read(schema_revision)
    if revision.is_current:
        return
    if revision.is_ahead:
        raise SchemaVersionError(revision.found, revision.expected, revision.command)
    # By name, because importing Alembic takes longer than everything else in a launch that needs no migration.
    upgrade: Callable[[Connection], Any] = importlib.import_module("dbos_orm.schema").upgrade_connection
    binding.gateway.change(upgrade)


def _report(binding: Binding, started: Launch) -> None:
    env = binding.environment
    workflows, runnable = len(env.registry), env.registry.runnable()
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "application %r launched as %s on %s: %d workflows, %d steps and transactions",
            env.application,
            started.executor_id,
            binding.engine.url.render_as_string(),
            workflows,
            env.registry.step_count,
        )
    verb = partial(ownership.count_stranded, application=env.application, runnable=runnable)
    stranded = binding.gateway.read(verb)
    if stranded:
        logger.warning(
            "%d stored workflows wait for what is not registered here (a name, version or instance): %s; "
            "run the version that began them, or see the page on recovery",
            sum(stranded.values()),
            ", ".join(f"{count} of {name}" for name, count in stranded.items()),
        )
