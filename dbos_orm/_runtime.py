"""An application in this process: unbound, bound or launched."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

from dbos_orm._context import Frame, Launch, current_frame, require_home, require_time
from dbos_orm._dialects import Dialect, dialect_of
from dbos_orm._drivers.binding import Application, Binding
from dbos_orm._flows.placing import Places
from dbos_orm.errors import ForkedProcessError, NotBoundError, NotLaunchedError, SessionMisuseError
from dbos_orm.models import WorkflowStatus


class Runtime:
    """The mutable state of one application. Everything that users hold has a reference to it."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.binding: Binding | None = None
        self.bind_given: Callable[[], object] | None = None
        """Binds to the database that was given when the application was made, at its first use."""
        self.launch: Launch | None = None
        self.look_for_slots: Callable[[], None] | None = None
        """Of a launch: looks at the schedules now, because one was changed."""
        self.places: Places | None = None
        """Of a launch: its slots, for what is started here and could begin at once."""
        self._dialects: WeakKeyDictionary[Engine, Dialect] = WeakKeyDictionary()
        self._queues: WeakKeyDictionary[Engine, dict[str, bool]] = WeakKeyDictionary()
        self._expected: WeakKeyDictionary[Session | Connection, set[tuple[str, str]]] = WeakKeyDictionary()

    def bound(self, operation: str) -> Binding:
        """The binding.

        Raises:
            NotBoundError: there is none yet.
        """
        binding = self.given_binding()
        if binding is None:
            raise NotBoundError(operation, self.application.name)
        return binding

    def given_binding(self) -> Binding | None:
        """The binding, if there is one yet or a database to bind to was given."""
        if self.binding is None and self.bind_given is not None:
            self.bind_given()
        return self.binding

    def launched(self, operation: str) -> tuple[Binding, Launch]:
        """The binding and the launch.

        Raises:
            NotBoundError, NotLaunchedError: there is none.
            ForkedProcessError: the launch was in the parent of this process.
        """
        binding = self.bound(operation)
        if self.launch is None or self.launch.is_over:
            raise NotLaunchedError(operation, self.application.name)
        if self.launch.pid != os.getpid():
            raise ForkedProcessError(operation, self.launch.pid, os.getpid())
        return binding, self.launch

    def dialect_of(self, connection: Connection) -> Dialect:
        """What is known about the database of a caller's connection, which must be this application's.

        An application that has no database yet takes any.

        Raises:
            SessionMisuseError: it is another database than the application's.
        """
        engine, binding = connection.engine, self.given_binding()
        if binding is not None:
            if engine is binding.engine:
                return binding.dialect
            if not binding.databases.knows_own:
                binding.gateway.read(binding.databases.learn_own)
            if not binding.databases.is_own(connection):
                raise SessionMisuseError(
                    f"a session of {engine.url.render_as_string()} is of another database than the application's, "
                    f"{binding.engine.url.render_as_string()}",
                    "give one of the application's database",
                )
        dialect = self._dialects.get(engine)
        if dialect is None:
            dialect = dialect_of(engine, self.application.clock, self.application.config)
            self._dialects[engine] = dialect
        return dialect

    def queues_of(self, connection: Connection) -> dict[str, bool]:
        """The queues that were found in the database of a caller's connection, and whether each is partitioned."""
        if self.binding is not None:
            return self.binding.environment.queues
        return self._queues.setdefault(connection.engine, {})

    def expect(self, scope: Session | Connection, places: Collection[tuple[str, str]]) -> None:
        """Note queues and names of what will wait there when the transaction of ``scope`` is committed."""
        self._expected.setdefault(scope, set()).update(places)

    def has_committed(self, scope: Session) -> None:
        """A listener: a transaction in which workflows were started was committed."""
        bind = scope.get_bind(WorkflowStatus.__mapper__)
        # A session that joined the transaction of a connection commits nothing: the connection does, later.
        if not (isinstance(bind, Connection) and bind.in_transaction()):
            self._announce(scope, is_expected=False)

    def is_committing(self, scope: Connection, *_: object) -> None:
        """A listener: such a transaction is going to be committed."""
        self._announce(scope, is_expected=True)

    def _announce(self, scope: Session | Connection, *, is_expected: bool) -> None:
        expected = self._expected.pop(scope, set())
        if self.binding is not None:
            for queue, name in sorted(expected):
                self.binding.hints.announce(queue, name, is_expected=is_expected)

    def frame(self) -> Frame | None:
        """The frame of the run of this application that the caller is in, if it is in one."""
        frame = current_frame.get()
        return None if frame is None or frame.run.launch.owner is not self else frame

    @property
    def executing(self) -> Launch | None:
        """The launch, if workflows are executed in this process now."""
        launch = self.launch
        return None if launch is None or launch.is_over or launch.pid != os.getpid() else launch


def body_frame(runtime: Runtime, operation: str) -> Frame | None:
    """The frame of the workflow body of this application that is calling; None where a call is a plain one.

    Raises:
        StepOutsideScopeError: the caller is a task or thread of its own.
        StepTimeoutError: it is an attempt of a step whose time is up.
    """
    frame = runtime.frame()
    if frame is None:
        return None
    if frame.step is not None:
        require_time(frame.step)
        return None
    require_home(frame, operation)
    return frame
