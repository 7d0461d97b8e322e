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
        ├── QueueNotEmptyError               live workflows are in a queue that is to be deleted
        ├── DeduplicationError               a live workflow of the queue has this deduplication ID
        ├── NotDelayedError                  a workflow whose delay is over
        ├── ScheduleNotFoundError            no schedule has this name
        ├── ScheduleExistsError              a schedule has this name already
        ├── NotAuthorizedError               the caller lacks a required role
        ├── NotInWorkflowError               a durable operation outside a workflow
        ├── NotInStepError                   in a workflow's body, what must be done in a step
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

from dbos_orm.errors._base import (
    DBOSError,
    RemoteError,
)
from dbos_orm.errors._ending import (
    MaxRecoveryAttemptsExceededError,
    MaxStepRetriesExceededError,
    OwnershipLost,
    StepTimeoutError,
    WorkflowCancelled,
    WorkflowCancelledError,
    WorkflowSuspended,
    WorkflowTimeoutError,
)
from dbos_orm.errors._running import (
    NonDeterministicError,
    NotCommittedError,
    NotInStepError,
    NotInWorkflowError,
    SerializationError,
    SessionMisuseError,
    StartInStepError,
    StepOutsideScopeError,
)
from dbos_orm.errors._setup import (
    ConfigurationError,
    ConflictingRegistrationError,
    DatabaseUnavailableError,
    ForkedProcessError,
    InstanceNotRegisteredError,
    NotBoundError,
    NotLaunchedError,
    NotRegisteredError,
    SchemaVersionError,
    TransactionOutputMissingError,
)
from dbos_orm.errors._starting import (
    ArgumentError,
    ConflictingWorkflowError,
    DeduplicationError,
    NotAuthorizedError,
    NotDelayedError,
    QueueNotEmptyError,
    QueueNotFoundError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    WorkflowExistsError,
    WorkflowNotFoundError,
)

__all__ = [
    "ArgumentError",
    "ConfigurationError",
    "ConflictingRegistrationError",
    "ConflictingWorkflowError",
    "DBOSError",
    "DatabaseUnavailableError",
    "DeduplicationError",
    "ForkedProcessError",
    "InstanceNotRegisteredError",
    "MaxRecoveryAttemptsExceededError",
    "MaxStepRetriesExceededError",
    "NonDeterministicError",
    "NotAuthorizedError",
    "NotBoundError",
    "NotCommittedError",
    "NotDelayedError",
    "NotInStepError",
    "NotInWorkflowError",
    "NotLaunchedError",
    "NotRegisteredError",
    "OwnershipLost",
    "QueueNotEmptyError",
    "QueueNotFoundError",
    "RemoteError",
    "ScheduleExistsError",
    "ScheduleNotFoundError",
    "SchemaVersionError",
    "SerializationError",
    "SessionMisuseError",
    "StartInStepError",
    "StepOutsideScopeError",
    "StepTimeoutError",
    "TransactionOutputMissingError",
    "WorkflowCancelled",
    "WorkflowCancelledError",
    "WorkflowExistsError",
    "WorkflowNotFoundError",
    "WorkflowSuspended",
    "WorkflowTimeoutError",
]

for _name in __all__:
    # What is stored and pickled names an error by where people import it from, and stays readable when files change.
    globals()[_name].__module__ = __name__
