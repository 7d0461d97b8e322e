"""Code that does in a workflow, or around one, what cannot be made durable."""

from __future__ import annotations

from dbos_orm.errors._base import DBOSError


class NotInWorkflowError(DBOSError):
    """The operation records in a workflow's history, and no workflow is running here."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(f"{operation} was called outside a workflow; call it from a function under @dbos.workflow")


class NotInStepError(DBOSError):
    """The operation was called in the body of a workflow, where a replay would do it again, unrecorded."""

    def __init__(self, operation: str, workflow_id: str) -> None:
        self.operation, self.workflow_id = operation, workflow_id
        super().__init__(
            f"workflow {workflow_id!r}: {operation} was called in the body of the workflow, and a replay would do it "
            "again; call it in a function under @dbos.step"
        )


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
