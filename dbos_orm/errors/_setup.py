"""An application that is not set up for what is asked of it."""

from __future__ import annotations

from collections.abc import Collection

from dbos_orm.errors._base import DBOSError


class ConfigurationError(DBOSError):
    """A setting, an option or an engine has a value that cannot work."""

    def __init__(self, field: str, value: object, expected: str, advice: str | None = None) -> None:
        self.field, self.value, self.expected, self.advice = field, value, expected, advice
        super().__init__(f"{field} is {value!r}: expected {expected}" + (f"; {advice}" if advice else ""))


class NotBoundError(DBOSError):
    """The operation needs a database, and the instance has not been given one."""

    def __init__(self, operation: str, application: str) -> None:
        self.operation, self.application = operation, application
        super().__init__(f"{operation}: application {application!r} is unbound; call bind(engine) or launch(engine)")


class NotLaunchedError(DBOSError):
    """The operation executes workflows, and the instance is not launched."""

    def __init__(self, operation: str, application: str) -> None:
        self.operation, self.application = operation, application
        super().__init__(f"{operation}: application {application!r} is not launched; call dbos.launch() before")


class SchemaVersionError(DBOSError):
    """The tables are not those of this version of the library; ``found`` is None when there are none."""

    def __init__(self, found: str | None, expected: str, command: str) -> None:
        self.found, self.expected, self.command = found, expected, command
        state = "has no tables of dbos_orm" if found is None else f"is at schema revision {found!r}"
        super().__init__(f"the database {state}, expected revision {expected!r}; run: {command}")


class TransactionOutputMissingError(DBOSError):
    """The database of a transaction's ``sessionmaker`` has no ``table``; ``url`` comes without password."""

    def __init__(self, url: str, table: str) -> None:
        self.url, self.table = url, table
        super().__init__(f"database {url!r} has no table {table!r}; run: dbos-orm migrate --transaction-output {url}")


class DatabaseUnavailableError(DBOSError):
    """The database did not answer although it was tried for ``seconds``; ``url`` comes without password."""

    def __init__(self, url: str, seconds: float, cause: BaseException | None = None) -> None:
        self.url, self.seconds, self.cause = url, seconds, cause
        # The driver's own first line: what SQLAlchemy wraps around it is advice on programming.
        lines = str(getattr(cause, "orig", None) or cause or "").strip().splitlines()
        reason = f" ({type(cause).__name__}: {lines[0].strip()})" if lines else ""
        trouble = "cannot be reached" if seconds < 1 else f"did not answer for {seconds:g} s"
        super().__init__(
            f"database {url!r} {trouble}{reason}; check that it exists and runs, and that this URL is right"
        )


class ForkedProcessError(DBOSError):
    """An instance that was launched before a fork is used in the forked process."""

    def __init__(self, operation: str, launched_pid: int, pid: int) -> None:
        self.operation, self.launched_pid, self.pid = operation, launched_pid, pid
        super().__init__(
            f"{operation} in process {pid}: this instance was launched in process {launched_pid} and its "
            "threads did not survive the fork; bind before forking and launch in the forked process"
        )


class ConflictingRegistrationError(DBOSError):
    """Two functions, queues or types want one name; ``existing`` and ``new`` say where each is defined."""

    def __init__(self, name: str, existing: str, new: str) -> None:
        self.name, self.existing, self.new = name, existing, new
        super().__init__(f"{name!r} is registered as {existing} and now again as {new}; give one of them another name=")


class NotRegisteredError(DBOSError):
    """The database or the caller names a function that this process does not have."""

    def __init__(self, name: str, registered: Collection[str]) -> None:
        self.name, self.registered = name, sorted(registered)
        super().__init__(
            f"{name!r} is not registered; registered: {self.registered}; "
            "import its module before launch, for example with modules=[...]"
        )


class InstanceNotRegisteredError(NotRegisteredError):
    """A workflow method needs an instance of ``class_name`` that is registered here under a name of ``registered``."""

    def __init__(self, name: str, class_name: str, registered: Collection[str]) -> None:
        self.name, self.class_name, self.registered = name, class_name, sorted(registered)
        DBOSError.__init__(
            self,
            f"workflow {name!r} needs a registered instance of {class_name}, so that another process can continue it; "
            f"registered: {self.registered}; write dbos.register({class_name}(...), name=...)",
        )
