"""An application in this process: unbound, bound or launched."""

from __future__ import annotations

import os
from collections.abc import Callable

from dbos_orm._context import Frame, Launch, current_frame, require_home, require_time
from dbos_orm._drivers.binding import Application, Binding
from dbos_orm.errors import ForkedProcessError, NotBoundError, NotLaunchedError


class Runtime:
    """The mutable state of one application. Everything that users hold has a reference to it."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.binding: Binding | None = None
        self.bind_given: Callable[[], object] | None = None
        """Binds to the database that was given when the application was made, at its first use."""
        self.launch: Launch | None = None

    def bound(self, operation: str) -> Binding:
        """The binding.

        Raises:
            NotBoundError: there is none yet.
        """
        if self.binding is None and self.bind_given is not None:
            self.bind_given()
        if self.binding is None:
            raise NotBoundError(operation, self.application.name)
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
