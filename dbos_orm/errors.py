"""Every exception that this library raises.

    Exception
    └── DBOSError
        ├── ConfigurationError               a setting has a value that cannot work
        ├── NotBoundError                    no database was given yet
        ├── NotLaunchedError                 bound, but not executing
        ├── SchemaVersionError               the tables are older or newer than the library
        ├── TransactionOutputMissingError    a second database lacks the one table that it needs
        ├── DatabaseUnavailableError         the database did not answer in the time allowed
        ├── ForkedProcessError               launched before a fork, used after it
        ├── ConflictingRegistrationError     one name, two functions
        ├── NotRegisteredError               a stored name that this process has no function for
        │   └── InstanceNotRegisteredError   a workflow method of an object that has no name here
        ├── ArgumentError                    an argument that its annotation does not allow
        ├── ConflictingWorkflowError         one workflow ID, two different starts
        ├── WorkflowExistsError              a known workflow ID, and on_existing="raise"
        ├── WorkflowNotFoundError            no workflow has this ID
        ├── QueueNotFoundError               no queue has this name
        ├── DeduplicationError               a live workflow of the queue has this deduplication ID
        ├── NotAuthorizedError               the caller lacks a required role
        ├── NotInWorkflowError               a durable operation outside a workflow
        ├── StepOutsideScopeError            a durable operation from a task that has no numbers
        ├── StartInStepError                 a workflow started inside a plain step
        ├── SessionMisuseError               a Session used where its work would not be durable
        ├── NotCommittedError                a staged handle read before its commit
        ├── NonDeterministicError            the code left the path of the recorded history
        ├── SerializationError               a value or payload that cannot be recorded or read exactly
        ├── RemoteError                      a recorded error whose type is not registered here
        ├── StepTimeoutError                 an attempt of a step exceeded its timeout
        ├── MaxStepRetriesExceededError      every attempt of a step failed
        ├── MaxRecoveryAttemptsExceededError the workflow was given up
        ├── WorkflowCancelledError           who awaits a cancelled workflow gets this
        └── WorkflowTimeoutError             who awaits a workflow that met its deadline gets this
    BaseException                            so that ``except Exception`` cannot swallow them
    ├── WorkflowCancelled                    unwinds the code of a workflow that was cancelled
    ├── WorkflowSuspended                    unwinds the code of a workflow that gives up its thread
    └── OwnershipLost                        unwinds a run that another process owns now (internal)

A constructor takes facts, keeps them as attributes of the same name, and builds the message. Every
error pickles and copies with its facts and notes; a fact that cannot be pickled travels as its ``repr``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from dbos_orm._portable_errors import Reduced, reduced


class DBOSError(Exception):
    """Anything that this library reports; catch it to catch all of them."""

    def __reduce__(self) -> Reduced:
        return reduced(self, _stand_in)


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


class ArgumentError(DBOSError):
    """An argument of a workflow with ``coerce=True`` is not what its annotation says, and cannot be made so."""

    def __init__(self, name: str, argument: str, problem: str, given: str) -> None:
        self.name, self.argument, self.problem, self.given = name, argument, problem, given
        super().__init__(f"workflow {name!r}, argument {argument}: {problem}, got {given}; nothing was started")


class ConflictingWorkflowError(DBOSError):
    """A known workflow ID was given to another start: ``field`` ("name", "application", "queue") differs."""

    def __init__(self, workflow_id: str, field: str, recorded: str | None, given: str | None) -> None:
        self.workflow_id, self.field, self.recorded, self.given = workflow_id, field, recorded, given
        super().__init__(
            f"workflow {workflow_id!r} exists with {field} {recorded!r}, but was now started with {field} "
            f"{given!r}; use another workflow ID"
        )


class WorkflowExistsError(DBOSError):
    """The workflow ID is in use, and the caller asked for on_existing="raise"."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(
            f'workflow {workflow_id!r} exists already; for a handle to it start without on_existing="raise"'
        )


class WorkflowNotFoundError(DBOSError):
    """No workflow of this ID is in the database."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(
            f"workflow {workflow_id!r} does not exist in this database; "
            "check the ID, and that the transaction which started it was committed"
        )


class QueueNotFoundError(DBOSError):
    """No queue of this name is declared in code or in the database."""

    def __init__(self, queue: str, known: Collection[str]) -> None:
        self.queue, self.known = queue, sorted(known)
        super().__init__(f"queue {queue!r} does not exist; known: {self.known}; declare it with dbos.queue({queue!r})")


class DeduplicationError(DBOSError):
    """A live workflow of the queue holds the deduplication ID; ``workflow_id`` is that workflow."""

    def __init__(self, queue: str, deduplication_id: str, workflow_id: str | None) -> None:
        self.queue, self.deduplication_id, self.workflow_id = queue, deduplication_id, workflow_id
        super().__init__(
            f"queue {queue!r}: the live workflow {workflow_id!r} has deduplication ID {deduplication_id!r}; "
            'wait for it, or start with on_duplicate="return"'
        )


class NotAuthorizedError(DBOSError):
    """The workflow requires one of some roles, and the caller has none of them."""

    def __init__(self, name: str, required: Collection[str], roles: Collection[str]) -> None:
        self.name, self.required, self.roles = name, sorted(required), sorted(roles)
        super().__init__(
            f"workflow {name!r} requires one of the roles {self.required}, but the caller has "
            f"{self.roles}; start it as a user who has one"
        )


class NotInWorkflowError(DBOSError):
    """The operation records in a workflow's history, and no workflow is running here."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(f"{operation} was called outside a workflow; call it from a function under @dbos.workflow")


class StepOutsideScopeError(DBOSError):
    """A durable operation came from a task without a place in the history: a replay could mix up results."""

    def __init__(self, operation: str, workflow_id: str) -> None:
        self.operation, self.workflow_id = operation, workflow_id
        super().__init__(
            f"workflow {workflow_id!r}: {operation} was called from a task or thread that it did not open; open "
            "tasks with dbos.gather(...) or dbos.task(...), and run steps in threads with step.submit(...)"
        )


class StartInStepError(DBOSError):
    """A workflow was started inside a plain step, which would start another one when it is repeated."""

    def __init__(self, name: str, step: str) -> None:
        self.name, self.step = name, step
        super().__init__(
            f"workflow {name!r} was started inside step {step!r}, which may run more than once; "
            "do it in the workflow, before or after the step, or start() it in a @dbos.transaction"
        )


class SessionMisuseError(DBOSError):
    """A Session was used in a way that the library cannot make durable."""

    def __init__(self, operation: str, advice: str) -> None:
        self.operation, self.advice = operation, advice
        super().__init__(f"{operation}; {advice}")


class NotCommittedError(DBOSError):
    """A staged handle was read before the transaction which holds its workflow was committed."""

    def __init__(self, operation: str, workflow_id: str) -> None:
        self.operation, self.workflow_id = operation, workflow_id
        super().__init__(
            f"{operation}: the start of workflow {workflow_id!r} is not committed; "
            "commit its transaction first (after a rollback there is no such workflow)"
        )


class NonDeterministicError(DBOSError):
    """The code did not call what the recorded history holds at ``step``, a path such as "3" or "3.2".

    ``arguments_differ``: it is the recorded function, called with other arguments.
    """

    def __init__(
        self, workflow_id: str, step: str, recorded: str | None, called: str | None, *, arguments_differ: bool = False
    ) -> None:
        self.workflow_id, self.step, self.recorded, self.called = workflow_id, step, recorded, called
        self.arguments_differ = arguments_differ
        now = "calls it with other arguments" if arguments_differ else f"calls {called!r}"
        super().__init__(
            f"workflow {workflow_id!r} step {step}: recorded {recorded!r}, but the code now {now};"
            " run the code that began it until it has finished, or start it again under another ID"
        )


class SerializationError(DBOSError):
    """The value at ``path`` would not come back equal and of its type, or a payload cannot be read here."""

    def __init__(self, path: str, type_name: str, advice: str) -> None:
        self.path, self.type_name, self.advice = path, type_name, advice
        super().__init__(f"{path}: {type_name}; {advice}")


class RemoteError(DBOSError):
    """A recorded error came back whose type, ``type_name`` ("module:qualified name"), is not registered here.

    ``traceback_text`` is the original's; its notes are notes of this error too, and print with it.
    """

    def __init__(
        self, type_name: str, message: str, traceback_text: str | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.type_name, self.message = type_name, message
        self.traceback_text, self.notes = traceback_text, list(notes)
        super().__init__(f"{type_name}: {message}" if message else type_name)
        for note in notes:
            self.add_note(note)


class StepTimeoutError(DBOSError):
    """One attempt of a step took longer than the step's timeout."""

    def __init__(self, step: str, timeout: timedelta) -> None:
        self.step, self.timeout = step, timeout
        super().__init__(
            f"step {step!r} did not finish within {timeout.total_seconds():g} s; "
            "give it a longer timeout=, or retry it with retry=Retry(...)"
        )


class MaxStepRetriesExceededError(DBOSError):
    """Every attempt of a step failed; ``errors`` holds what each of them raised, the first one first."""

    def __init__(self, step: str, attempts: int, errors: Sequence[BaseException]) -> None:
        self.step, self.attempts, self.errors = step, attempts, list(errors)
        last = f" (last: {type(self.errors[-1]).__name__}: {self.errors[-1]})" if self.errors else ""
        super().__init__(f"step {step!r} failed in each of {attempts} attempts{last}; all are in .errors")


class MaxRecoveryAttemptsExceededError(DBOSError):
    """The workflow was taken over again and again without recording a new step, and was given up."""

    def __init__(self, workflow_id: str, attempts: int, reason: str) -> None:
        self.workflow_id, self.attempts, self.reason = workflow_id, attempts, reason
        super().__init__(
            f"workflow {workflow_id!r} was given up after {attempts} recoveries: {reason}; "
            "remove the cause, then start the work again under another workflow ID"
        )


class WorkflowCancelledError(DBOSError):
    """The awaited workflow was cancelled and has no result."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(f"workflow {workflow_id!r} was cancelled; it has no result")


class WorkflowTimeoutError(DBOSError):
    """The awaited workflow met its own deadline (a caller who waited long enough gets ``TimeoutError``)."""

    def __init__(self, workflow_id: str, deadline: datetime | None) -> None:
        self.workflow_id, self.deadline = workflow_id, deadline
        when = "its deadline" if deadline is None else f"its deadline {deadline.isoformat()}"
        super().__init__(
            f"workflow {workflow_id!r} was cancelled at {when}; start it with a longer timeout= or a later deadline="
        )


class _Unwinding(BaseException):
    """Passes through user code to the driver; not an Exception, so that it is not swallowed by accident."""

    _meaning = "is unwound"

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(f"workflow {workflow_id!r} {self._meaning}; let this exception pass")

    def __reduce__(self) -> Reduced:
        return reduced(self, _stand_in)


class WorkflowCancelled(_Unwinding):
    """Raised in a workflow at its next durable operation after it was cancelled; ``finally`` blocks run."""

    _meaning = "was cancelled"


class WorkflowSuspended(_Unwinding):
    """Raised in a waiting workflow that gives up its thread; it runs again later. Hold no lock in a wait."""

    _meaning = "gives up its thread while it waits"


class OwnershipLost(_Unwinding):
    """Raised in a run whose workflow another process owns now: it ends quietly and records nothing."""

    _meaning = "belongs to another process now"


def _stand_in(error: BaseException) -> BaseException:
    return RemoteError(f"{type(error).__module__}:{type(error).__qualname__}", str(error))
