"""Coroutines side by side in a workflow: each has numbers of its own for its steps."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from dbos_orm._context import Frame, Run, Scope, current_frame
from dbos_orm._runtime import Runtime, body_frame
from dbos_orm.errors import ConfigurationError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def open_task(runtime: Runtime, coroutine: Coroutine[Any, Any, T], *, name: str | None) -> asyncio.Task[T]:
    """A task of the running workflow, numbered now; outside a workflow's body, a task as any other.

    Raises:
        StepOutsideScopeError: the caller is a task that the workflow did not open.
        ConfigurationError: it is no coroutine.
    """
    if not asyncio.iscoroutine(coroutine):
        raise ConfigurationError("task", coroutine, "a coroutine", "call the function: dbos.task(work(1))")
    frame = _frame(runtime, "dbos.task()", [coroutine])
    if frame is None:
        return asyncio.get_running_loop().create_task(coroutine, name=name)
    return _opened(frame, coroutine, name)


def gather(
    runtime: Runtime, awaitables: Sequence[Awaitable[Any]], *, return_exceptions: bool
) -> asyncio.Future[list[Any]]:
    """``asyncio.gather`` for the coroutines of a workflow, each of which is numbered now, in their order.

    It waits for all of them and then raises the first error in their order: which of two is raised first
    would be another matter in a replay. Futures and tasks have no number.

    Raises:
        StepOutsideScopeError: the caller is a task that the workflow did not open.
    """
    frame = _frame(runtime, "dbos.gather()", awaitables)
    if frame is None:
        return asyncio.gather(*awaitables, return_exceptions=return_exceptions)
    children: dict[Awaitable[Any], asyncio.Future[Any]] = {}
    for awaitable in awaitables:
        if awaitable not in children:
            children[awaitable] = _future(frame, awaitable)
    return _Gathered([children[awaitable] for awaitable in awaitables], return_exceptions=return_exceptions)


def typed_as(model: F, function: Callable[..., Any]) -> F:
    """The function, with the type of another one: overloads of a standard function are not written again."""
    return cast("F", function)


def _frame(runtime: Runtime, operation: str, awaitables: Sequence[Awaitable[Any]]) -> Frame | None:
    try:
        return body_frame(runtime, operation)
    except BaseException:
        # Nobody will await them, and Python warns of every coroutine that was not.
        for awaitable in awaitables:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
        raise


def _future(frame: Frame, awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    if asyncio.isfuture(awaitable):
        return awaitable
    return _opened(frame, awaitable if asyncio.iscoroutine(awaitable) else _awaited(awaitable), None)


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _opened(frame: Frame, coroutine: Coroutine[Any, Any, T], name: str | None) -> asyncio.Task[T]:
    """A task with a scope of its own, whose path is the number that is drawn for it."""
    run, key = frame.run, frame.scope.draw()
    scope = Scope(key.path)
    context = contextvars.copy_context()
    context.run(current_frame.set, Frame(run, scope))
    task = asyncio.get_running_loop().create_task(
        coroutine, name=name or f"dbos {run.workflow_id} {key.path}", context=context
    )
    scope.home = task
    run.opened[task] = None
    task.add_done_callback(partial(_closed, run))
    return task


def _closed(run: Run, task: asyncio.Task[Any]) -> None:
    run.opened.pop(task, None)
    if run.stop is not None and not task.cancelled():
        task.exception()  # of a run that was ended nobody needs a warning that this was not asked for


class _Gathered(asyncio.Future[list[Any]]):
    """Has the results of other futures when all of them are done.

    At once, if one of them made an exit (its run has ended): the others are then cancelled with the run.
    Cancelled, it cancels them and waits for their end.
    """

    def __init__(self, children: Sequence[asyncio.Future[Any]], *, return_exceptions: bool) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._children = children
        self._return_exceptions = return_exceptions
        self._is_cancelled = False
        different = set(children)
        self._missing = len(different)
        for child in different:
            child.add_done_callback(self._note)
        if not different:
            self.set_result([])

    def cancel(self, msg: Any | None = None) -> bool:
        if self.done():
            return False
        self._is_cancelled = True
        for child in self._children:
            child.cancel(msg)
        return True

    def _note(self, child: asyncio.Future[Any]) -> None:
        self._missing -= 1
        error = None if child.cancelled() else child.exception()
        if self.done():
            return
        if error is not None and not isinstance(error, Exception):
            self._fail(error)
        elif not self._missing:
            self._finish()

    def _finish(self) -> None:
        if self._is_cancelled:
            super().cancel()
            return
        results: list[Any] = []
        for child in self._children:
            error = asyncio.CancelledError() if child.cancelled() else child.exception()
            if error is not None and not self._return_exceptions:
                self._fail(error)
                return
            results.append(child.result() if error is None else error)
        self.set_result(results)

    def _fail(self, error: BaseException) -> None:
        self.set_exception(error)
        if not isinstance(error, Exception):
            self.exception()  # nobody needs a warning of it
