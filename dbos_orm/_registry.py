"""Which function a name stands for, in one application."""

from __future__ import annotations

import hashlib
import inspect
import io
import textwrap
import threading
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from dbos_orm.errors import ConflictingRegistrationError, NotRegisteredError

_INSIGNIFICANT: Final = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredWorkflow:
    """A workflow function under its name, with what the decorator said of every run of it."""

    name: str
    function: Callable[..., Any]
    version: str
    is_async: bool
    signature: inspect.Signature | None
    timeout: timedelta | None = None
    max_recovery_attempts: int | None = None


@dataclass(slots=True)
class Registry:
    """The functions of one application; safe to use from several threads."""

    application: str
    _workflows: dict[str, RegisteredWorkflow] = field(default_factory=dict)
    _steps: dict[str, Callable[..., Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin_again(self) -> None:
        """In a forked child: a lock that nobody holds."""
        self._lock = threading.Lock()

    def add_workflow(self, workflow: RegisteredWorkflow) -> None:
        """Make the name stand for this workflow.

        Raises:
            ConflictingRegistrationError: the name stands for another function already.
        """
        with self._lock:
            existing = self._workflows.get(workflow.name)
            if existing is not None:
                raise ConflictingRegistrationError(
                    workflow.name, place_of(existing.function), place_of(workflow.function)
                )
            self._workflows[workflow.name] = workflow

    def add_step(self, name: str, function: Callable[..., Any]) -> None:
        """Reserve the name of a step or transaction for this function.

        The same code may come again: a step made in a loop or in a workflow's body is made each time.

        Raises:
            ConflictingRegistrationError: the name belongs to other code.
        """
        with self._lock:
            existing = self._steps.setdefault(name, function)
        if existing is not function and _code_of(existing) != _code_of(function):
            raise ConflictingRegistrationError(name, place_of(existing), place_of(function))

    def workflow(self, name: str) -> RegisteredWorkflow:
        """The workflow of this name.

        Raises:
            NotRegisteredError: this process has none.
        """
        try:
            return self._workflows[name]
        except KeyError:
            raise NotRegisteredError(name, self._workflows) from None

    def runnable(self) -> list[tuple[str, str]]:
        """Every (name, version) that this process can continue."""
        return [(workflow.name, workflow.version) for workflow in list(self._workflows.values())]

    def __iter__(self) -> Iterator[RegisteredWorkflow]:
        return iter(list(self._workflows.values()))

    def __len__(self) -> int:
        return len(self._workflows)

    @property
    def step_count(self) -> int:
        """How many different steps and transactions are registered."""
        return len(self._steps)


def version_of(function: Callable[..., Any], name: str) -> str:
    """A hash of the function's own source, for telling a changed workflow from the same one.

    Comments, blank lines, indentation as a whole and decorators do not count; what the function calls
    does not either (steps may change while workflows run). Without source (a REPL, a frozen
    program) the version is made from ``name``: then it never changes by itself.
    """
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
        tokens = [
            token.string if token.type not in (tokenize.INDENT, tokenize.DEDENT) else f"<{token.type}>"
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type not in _INSIGNIFICANT
        ]
    except (OSError, TypeError, tokenize.TokenError, SyntaxError):
        return f"name-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    start = next((i for i, token in enumerate(tokens) if token in ("def", "async", "lambda")), 0)
    return hashlib.sha256("\x00".join(tokens[start:]).encode()).hexdigest()[:16]


def place_of(function: Callable[..., Any]) -> str:
    """Where a function is defined, for people: ``shop.orders.checkout (/srv/shop/orders.py:12)``."""
    inner = inspect.unwrap(function)
    name = f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', repr(inner))}"
    code = getattr(inner, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def _code_of(function: Callable[..., Any]) -> object:
    return getattr(inspect.unwrap(function), "__code__", function)
