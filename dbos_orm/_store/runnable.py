"""What a process can run, as a condition on status rows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, literal, or_, tuple_

from dbos_orm._registry import Runnable
from dbos_orm.models import WorkflowStatus


def is_runnable(runnable: Sequence[Runnable]) -> ColumnElement[bool]:
    """Whether its version is here, and its instance. Name and version come first: an index leads to them."""
    functions: dict[str, list[str]] = {}
    methods: dict[tuple[str, str], list[Runnable]] = {}
    for one in runnable:
        if one.class_name is None:
            functions.setdefault(one.version, []).append(one.name)
        else:
            methods.setdefault((one.name, one.version), []).append(one)
    return or_(
        *(_is_code(names, version) & WorkflowStatus.class_name.is_(None) for version, names in functions.items()),
        *(_is_code([name], version) & _is_on(instances) for (name, version), instances in methods.items()),
        literal(False) if not runnable else or_(False),
    )


def can_be_stamped(runnable: Sequence[Runnable]) -> ColumnElement[bool]:
    """Whether it has no version yet, and may get the one that is here."""
    functions = [one.name for one in runnable if one.class_name is None]
    methods = [one for one in runnable if one.class_name is not None]
    is_here = WorkflowStatus.class_name.is_(None) & WorkflowStatus.name.in_(functions)
    if methods:
        is_here |= WorkflowStatus.name.in_(sorted({one.name for one in methods})) & _is_on(methods, by_name=True)
    return WorkflowStatus.version.is_(None) & is_here


def _is_code(names: Sequence[str], version: str) -> ColumnElement[bool]:
    is_named = WorkflowStatus.name == names[0] if len(names) == 1 else WorkflowStatus.name.in_(names)
    return and_(is_named, WorkflowStatus.version == version)


def _is_on(methods: Sequence[Runnable], *, by_name: bool = False) -> ColumnElement[bool]:
    """Whether its instance is one of these, of the workflow's own name if that was not compared before."""
    columns = [WorkflowStatus.class_name, WorkflowStatus.config_name]
    if by_name:
        columns.append(WorkflowStatus.name)
        return tuple_(*columns).in_([(one.class_name, one.config_name, one.name) for one in methods])
    return tuple_(*columns).in_([(one.class_name, one.config_name) for one in methods])
