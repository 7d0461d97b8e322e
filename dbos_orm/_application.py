"""What both colours of application share: their parts, and their life cycle."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from dbos_orm import _launching
from dbos_orm._binds import ResolvedBind
from dbos_orm._clock import Clock
from dbos_orm._drivers.binding import Application, Binding, bind
from dbos_orm._drivers.inline import bind_inline
from dbos_orm._identifiers import IdentifierSource
from dbos_orm._operations import AnyOperations
from dbos_orm._registry import Registry
from dbos_orm._runtime import Runtime
from dbos_orm._services.inline import InlineWork
from dbos_orm._services.scheduling import ScheduleInfo
from dbos_orm._summary import LaunchSummary, summarize
from dbos_orm._surroundings import Surroundings
from dbos_orm.config import Config, Duration, seconds
from dbos_orm.errors import ConfigurationError, NotLaunchedError
from dbos_orm.handles import StepInfo, WorkflowInfo
from dbos_orm.serialization import Codec, JSONSerializer, PickleSerializer, TypeRegistry


class AnyDBOS(AnyOperations):
    """One application. Made at import, bound to a database, launched to execute; see ``DBOS`` and ``AsyncDBOS``."""

    def __init__(
        self,
        *,
        name: str,
        modules: Sequence[str],
        run_context: Callable[[], AbstractContextManager[Any]] | None,
        config: Config,
    ) -> None:
        _require_name(name)
        _require_settings(modules, run_context, config)
        self.name = name
        self.config = config
        self.types = TypeRegistry()
        self._modules = tuple(modules)
        self._runtime = Runtime(_application(name, config, self.types, Surroundings(run_context)))
        self._launched: _launching.Launched | None = None
        self._inherited: _launching.Launched | None = None
        self._resolved: ResolvedBind | None = None
        _watch_forks_and_exit(self)

    def __repr__(self) -> str:
        state = "unbound" if self._runtime.binding is None else "bound"
        return f"<{type(self).__name__} {self.name!r} {'launched' if self._runtime.executing else state}>"

    # -- life cycle ------------------------------------------------------------------------------

    @property
    def is_launched(self) -> bool:
        """Whether this process executes workflows of the application."""
        return self._runtime.executing is not None

    @property
    def running(self) -> int:
        """How many workflows this process executes now."""
        binding = self._runtime.binding
        return 0 if binding is None else len(binding.runs)

    def summarize(self) -> LaunchSummary:
        """What this launch has found, for people. It asks the database, and blocks meanwhile.

        Raises:
            NotLaunchedError: the application is not launched.
        """
        return summarize(*self._runtime.launched("summarize()"))

    def run_at_most(self, count: int) -> None:
        """Have the next launch run this many workflows from the database at a time, whatever the ``Config`` says."""
        self.config = replace(self.config, worker_threads=count, async_workflows=count)
        self._runtime.application = replace(self._runtime.application, config=self.config)
        resolved, binding = self._resolved, self._runtime.binding
        if resolved is not None and binding is not None:
            binding.close()
            self._runtime.binding = _binding_of(self._runtime.application, resolved)

    def _bind(self, resolved: ResolvedBind) -> None:
        if self._runtime.executing is not None:
            raise ConfigurationError(
                "bind", resolved.engine.url.render_as_string(), "nothing while launched", "shut down first"
            )
        if self._runtime.binding is not None:
            self._unbind()
        self._resolved = resolved
        self._runtime.binding = _binding_of(self._runtime.application, resolved)

    def _unbind(self) -> None:
        binding, self._runtime.binding = self._runtime.binding, None
        if binding is not None:
            binding.close()
        if self._resolved is not None and self._resolved.is_ours:
            self._dispose(self._resolved)
        self._resolved = None

    def _dispose(self, resolved: ResolvedBind) -> None:
        resolved.engine.dispose()

    def _launch(self, *, migrate: bool | None, served: list[str] | None) -> None:
        assert self._resolved is not None
        may_migrate = self._resolved.is_default if migrate is None else migrate
        self._runtime.bound("launch()").databases.may_create = migrate is True
        self._launched = _launching.launch(self._runtime, modules=self._modules, migrate=may_migrate, served=served)

    def _launch_inline(self, *, migrate: bool | None) -> None:
        self._launched = _launching.launch_inline(self._runtime, modules=self._modules, migrate=bool(migrate))

    def _require_inline(self, *, inline: bool) -> None:
        """Inline is what a connection is for, and only that."""
        resolved = self._resolved
        if resolved is not None and inline != (resolved.connection is not None):
            expected = "a Connection" if inline else "an Engine, or inline=True with a Connection"
            raise ConfigurationError(
                "bind",
                resolved.connection or resolved.engine.url.render_as_string(),
                f"{expected} to launch on",
                "launch(connection, inline=True) runs everything on that connection; any other launch needs an engine",
            )

    def _inline_work(self) -> InlineWork:
        launched = self._launched
        if launched is None or launched.inline is None:
            raise NotLaunchedError("drain()", f"{self.name} inline")
        return launched.inline

    def _refuse_second_launch(self) -> None:
        if self.is_launched:
            raise ConfigurationError("launch", self.name, "an application that is not launched", "shut down first")

    def shut_down(self, timeout: Duration) -> None:
        """What ``shutdown`` does, blocking."""
        patience = seconds(timeout, field="timeout")
        launched, self._launched = self._launched, None
        if launched is None or launched.launch.pid != os.getpid():
            self._unbind()
            return
        try:
            _launching.shutdown(self._runtime, launched, patience)
        finally:
            self._runtime.launch = None
            self._unbind()

    def end(self) -> None:
        """Leave nothing behind at the end of the process; in a forked child nothing is ours."""
        launch = self._runtime.launch
        if launch is None or launch.pid == os.getpid():
            self.shut_down(0)

    def forget_parent(self) -> None:
        """In a forked child: what belongs to the parent is dropped; the application is bound, not launched."""
        # Kept, because closing what its services hold would reach the parent's end of it.
        self._inherited, self._launched = self._launched, None
        binding, launch = self._runtime.binding, self._runtime.launch
        if launch is not None:
            launch.is_forked = True
        self._runtime.application.identifiers.begin_again()
        self._runtime.application.registry.begin_again()
        if binding is None or self._resolved is None:
            return
        if self._resolved.is_ours:
            self._resolved.engine.dispose(close=False)
        binding.forget()
        self._runtime.binding = _binding_of(self._runtime.application, self._resolved)


def _binding_of(application: Application, resolved: ResolvedBind) -> Binding:
    if resolved.connection is not None:
        return bind_inline(application, resolved.connection)
    return bind(application, resolved.engine, resolved.factory, resolved.registry)


def _require_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip() or "\x00" in name:
        raise ConfigurationError("name", name, "the application's name, a text", 'write DBOS(engine, name="shop")')


def _require_settings(modules: object, run_context: object, config: object) -> None:
    if isinstance(modules, str):
        raise ConfigurationError("modules", modules, "a list of module names", f"write modules=[{modules!r}]")
    if run_context is not None and not callable(run_context):
        raise ConfigurationError(
            "run_context", run_context, "a function that gives a context manager", "write run_context=app.app_context"
        )
    if not isinstance(config, Config):
        raise ConfigurationError("config", config, "a Config", "write config=Config(...)")


def _application(name: str, config: Config, types: TypeRegistry, surroundings: Surroundings) -> Application:
    types.register(WorkflowInfo)
    types.register(StepInfo)
    types.register(ScheduleInfo)
    serializers = [JSONSerializer(types), *config.serializers]
    if config.serializer == "pickle":
        serializers.append(PickleSerializer())
    default = next(serializer for serializer in serializers if serializer.name == config.serializer)
    others = [serializer for serializer in serializers if serializer is not default]
    codec = Codec(default, others)
    return Application(name, config, Clock(), codec, Registry(name), IdentifierSource(), surroundings)


def _watch_forks_and_exit(application: AnyDBOS) -> None:
    """Have forks and the end of the process noticed, without keeping the application alive."""
    reference = weakref.ref(application)

    def after_fork() -> None:
        found = reference()
        if found is not None:
            found.forget_parent()

    def at_exit() -> None:
        found = reference()
        if found is not None:
            found.end()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=after_fork)
    atexit.register(at_exit)
