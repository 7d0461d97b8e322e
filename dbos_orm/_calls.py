"""A call of a workflow, made now and started later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dbos_orm._options import WorkflowOptions
from dbos_orm._registry import RegisteredWorkflow, Registry

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Call(Generic[R_co]):
    """A workflow with its arguments and options, checked and not started; ``workflow.call(...)`` makes it.

    Nothing is stored. ``payload`` has the arguments as they were when it was made, and as they will be recorded;
    ``registry`` is that of its application.
    """

    registry: Registry
    workflow: RegisteredWorkflow
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    options: WorkflowOptions
    payload: str

    @property
    def name(self) -> str:
        """The name under which runs of the workflow are stored."""
        return self.workflow.name

    def __repr__(self) -> str:
        shown = [repr(argument) for argument in self.arguments]
        shown += [f"{name}={argument!r}" for name, argument in self.keywords.items()]
        return f"<Call {self.name}({', '.join(shown)})>"
