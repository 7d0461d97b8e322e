"""What a framework wants around code that it did not call itself: ``run_context`` of the user's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, Final, TypeVar

from dbos_orm._context import Run, logger
from dbos_orm.errors import OwnershipLost

T = TypeVar("T")


class Surroundings:
    """Enters the user's context manager around code on threads of the library's; elsewhere it is entered already."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], AbstractContextManager[Any]] | None = None) -> None:
        self.make = make

    def call(self, run: Run | None, function: Callable[[], T]) -> T:
        """Call a function inside. What goes wrong at leaving is logged: the function has done its work.

        Raises:
            OwnershipLost: it could not be entered; nothing was called, and the run is to be handed over.
        """
        if self.make is None:
            return function()
        stack = ExitStack()
        try:
            stack.enter_context(self.make())
        except Exception as error:
            if run is None:
                raise
            logger.exception("run_context cannot be entered; workflow %r is handed over", run.workflow_id)
            run.end_with(OwnershipLost(run.workflow_id))
            raise run.stop or error from error
        try:
            return function()
        finally:
            try:
                stack.close()
            except Exception:
                logger.exception("run_context cannot be left")

    def around(self, run: Run | None, function: Callable[[], T]) -> Callable[[], T]:
        """The function, to be called inside."""
        return function if self.make is None else partial(self.call, run, function)


NOTHING: Final = Surroundings()
