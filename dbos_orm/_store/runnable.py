"""What a process can run, as a condition on status rows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, literal, or_, tuple_

from dbos_orm._registry import Runnable
from dbos_orm.models import WorkflowStatus


def is_runnable(runnable: Sequence[Runnable]) -> ColumnElement[bool]:
    """Whether its version is here, and its instance. Name and version come first: an index leads to them."""
    functions = [one for one in runnable if one.class_name is None]
    methods: dict[tuple[str, str], list[Runnable]] = {}
    for one in runnable:
        if one.class_name is not None:
            methods.setdefault((one.name, one.version), []).append(one)
    return or_(
        *(_is_code(one.name, one.version) & WorkflowStatus.class_name.is_(None) for one in functions),
        *(_is_code(*code) & _is_on(instances) for code, instances in methods.items()),
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


def _is_code(name: str, version: str) -> ColumnElement[bool]:
    return and_(WorkflowStatus.name == name, WorkflowStatus.version == version)


def _is_on(methods: Sequence[Runnable], *, by_name: bool = False) -> ColumnElement[bool]:
    """Whether its instance is one of these, of the workflow's own name if that was not compared before."""
    columns = [WorkflowStatus.class_name, WorkflowStatus.config_name]
    if by_name:
        columns.append(WorkflowStatus.name)
        return tuple_(*columns).in_([(one.class_name, one.config_name, one.name) for one in methods])
    return tuple_(*columns).in_([(one.class_name, one.config_name) for one in methods])
