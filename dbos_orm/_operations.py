"""What both colours offer to the functions of an application: registration, and what a run may ask."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import timedelta, tzinfo
from functools import partial
from typing import Any, TypeVar

from dbos_orm._callables import is_method, name_of, require_function, signature_of, without_self
from dbos_orm._coercion import Coercion
from dbos_orm._context import RunContext, current_frame, current_transaction, frame_for_operation, random_of, uuid_of
from dbos_orm._drivers.binding import Binding
from dbos_orm._flows import operating
from dbos_orm._flows.effects import Flow, Outcome
from dbos_orm._options import queue_name
from dbos_orm._queue_settings import OnConflict, RateLimit, queue_settings
from dbos_orm._queues import Queue
from dbos_orm._registry import RegisteredWorkflow, version_of
from dbos_orm._runtime import Runtime
from dbos_orm._schedule_settings import (
    CatchUp,
    ScheduleSettings,
    checked_catch_up,
    require_schedulable,
    require_schedule_name,
)
from dbos_orm._services.cron import Trigger, timetable
from dbos_orm._settings import TransactionSettings, transaction_settings
from dbos_orm._workflows import AnyWorkflow
from dbos_orm.config import Config, Duration, require_count, require_text, seconds
from dbos_orm.errors import ConfigurationError, NotInWorkflowError
from dbos_orm.serialization import TypeRegistry

T = TypeVar("T")


class AnyOperations:
    """The operations that both colours have, on one application; what they need no database for is done here."""

    name: str
    config: Config
    types: TypeRegistry
    """The types that this application's values may have; ``dbos.types.register(Money)``."""
    _runtime: Runtime

    # -- registration ----------------------------------------------------------------------------

    def _register_workflow(
        self,
        function: Callable[..., Any],
        *,
        is_async: bool,
        name: str | None = None,
        version: str | None = None,
        timeout: Duration | None = None,
        max_recovery_attempts: int | None = None,
        coerce: bool = False,
        queue: Queue | str | None = None,
    ) -> RegisteredWorkflow:
        require_function(function, "workflow", is_async=is_async)
        found = name_of(function, name)
        if timeout is not None and seconds(timeout, field="timeout") <= 0:
            raise ConfigurationError("timeout", timeout, "more than zero", "leave it out for no timeout")
        if version is not None:
            require_text("version", version)
        if max_recovery_attempts is not None:
            require_count("max_recovery_attempts", max_recovery_attempts)
        is_bound = is_method(function)
        signature = signature_of(function)
        called = without_self(signature) if is_bound else signature
        registered = RegisteredWorkflow(
            name=found,
            function=function,
            version=version or self.config.application_version or version_of(function, found),
            is_async=is_async,
            signature=called,
            coerce=Coercion(found, function, called) if coerce else None,
            is_method=is_bound,
            timeout=None if timeout is None else timedelta(seconds=seconds(timeout)),
            max_recovery_attempts=max_recovery_attempts,
            queue=None if queue is None else queue_name(queue, self._runtime.application.registry),
        )
        self._runtime.application.registry.add_workflow(registered)
        self.types.register_function(function)
        return registered

    def queue(
        self,
        name: str,
        /,
        *,
        concurrency: int | None = None,
        worker_concurrency: int | None = None,
        rate_limit: RateLimit | None = None,
        partitioned: bool = False,
        on_conflict: OnConflict = "keep",
    ) -> Queue:
        """Declare a queue, to be named in the options of starts: ``work.options(queue=...)``.

        ``concurrency`` is how many of its workflows run at the same time over all processes, ``worker_concurrency`` how
        many in one process, ``rate_limit`` how many begin within any period. In a ``partitioned`` queue
        each start names its partition, and each limit is meant for every partition by itself.

        A launch stores the limits where the queue has none yet. What was changed since then stays, unless
        ``on_conflict="update"`` forces what the code says. Declared again, it must be with the same limits.

        Raises:
            ConfigurationError: limits that cannot work or contradict each other, or the queue has others already.
        """
        settings = queue_settings(
            name,
            concurrency=concurrency,
            worker_concurrency=worker_concurrency,
            rate_limit=rate_limit,
            partitioned=partitioned,
            on_conflict=on_conflict,
        )
        application = self._runtime.application
        application.registry.add_queue(settings)
        return Queue(application.name, settings, application.registry)

    def _register_schedule(
        self,
        workflow: object,
        schedule: str | Trigger,
        *,
        name: str | None,
        timezone: str | tzinfo | None,
        queue: Queue | str | None,
        catch_up: CatchUp,
    ) -> None:
        if not isinstance(workflow, AnyWorkflow):
            raise ConfigurationError(
                "scheduled", workflow, "a workflow", "write @dbos.scheduled(...) above @dbos.workflow, not below it"
            )
        registered = workflow.scheduled_by(self._runtime)
        require_schedulable(registered.name, registered.signature, context=False)
        found = registered.name if name is None else name
        require_schedule_name(found)
        times, given = timetable(schedule, timezone), registered.queue if queue is None else queue
        settings = ScheduleSettings(
            name=found,
            workflow_name=registered.name,
            after=times.after,
            timezone=times.timezone,
            expression=times.expression,
            trigger=times.trigger,
            queue=None if given is None else queue_name(given, self._runtime.application.registry),
            catch_up=checked_catch_up(catch_up),
        )
        self._runtime.application.registry.add_schedule(settings)

    def register(self, instance: T, /, *, name: str) -> T:
        """Name an object, so that its workflow methods can be called and started; and give it back.

        The name is stored with each run, and whoever continues it needs an object of the same class under the same
        name: register in every process, for example at import. The object is kept as long as the application.

        Raises:
            ConflictingRegistrationError: another object of this class has the name.
            ConfigurationError: it has no workflow methods of this application, or another name already.
        """
        require_text("name", name)
        kinds = [] if isinstance(instance, type) else type(instance).__mro__
        found = [value for kind in kinds for value in vars(kind).values() if isinstance(value, AnyWorkflow)]
        methods = [method for value in found if (method := value.is_method_of(self._runtime)) is not None]
        if not methods:
            raise ConfigurationError(
                "register",
                instance,
                f"an object whose class has a method under @workflow of application {self.name!r}",
                "functions, steps and transactions need no registration",
            )
        self._runtime.application.registry.add_instance(instance, name, methods)
        return instance

    def _register_step(
        self,
        function: Callable[..., Any],
        decorator: str,
        *,
        is_async: bool | None,
        name: str | None,
    ) -> str:
        require_function(function, decorator, is_async=is_async)
        found = name_of(function, name)
        self._runtime.application.registry.add_step(found, function)
        self.types.register_function(function)
        return found

    def _transaction_settings(self, options: dict[str, Any], *, is_async: bool) -> TransactionSettings:
        maker, max_attempts = options.pop("sessionmaker", None), options.pop("max_attempts", None)
        if max_attempts is None:
            max_attempts = self.config.transaction_attempts
        return transaction_settings(max_attempts=max_attempts, maker=maker, is_async=is_async, **options)

    # -- inside a run ----------------------------------------------------------------------------

    @property
    def current(self) -> RunContext:
        """The run and step that the caller is in.

        Raises:
            NotInWorkflowError: none is.
        """
        frame = current_frame.get()
        if frame is None:
            raise NotInWorkflowError("dbos.current")
        return RunContext(frame)

    @property
    def random(self) -> random.Random:
        """A random source that gives a replay the same numbers; nothing is recorded.

        Raises:
            NotInWorkflowError: no workflow is running here.
        """
        return random_of(frame_for_operation("dbos.random"))

    def uuid(self) -> uuid.UUID:
        """A UUID4 that a replay gets again; raises as ``random``."""
        return uuid_of(frame_for_operation("dbos.uuid()"))

    def _present(self) -> tuple[Binding, Flow[Outcome]]:
        """``now()``: recorded in a workflow's body, the clock's in a step."""
        binding, clock = self._runtime.bound("dbos.now()"), self._runtime.application.clock
        frame = current_frame.get()
        if frame is not None and frame.step is not None:
            return binding, operating.value_of(clock.now)
        frame = frame_for_operation("dbos.now()")
        key, answer = frame.scope.draw(), partial(operating.value_of, clock.now)
        return binding, operating.recorded(binding.environment, frame, key, "now", "now", answer)

    def _sleeping(self, duration: Duration) -> tuple[Binding, Flow[None]]:
        """``sleep()``."""
        binding = self._runtime.bound("dbos.sleep()")
        frame = frame_for_operation("dbos.sleep()")
        length = seconds(duration)
        key = None if frame.step is not None else frame.scope.draw()
        return binding, operating.sleep(binding.environment, frame, key, length)

    def _session(self) -> Any:
        transaction = current_transaction.get()
        binding = self._runtime.binding
        if transaction is None or binding is None or not binding.databases.opened(transaction):
            raise NotInWorkflowError("dbos.session")
        return transaction.session
