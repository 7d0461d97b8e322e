"""Which function a name stands for, in one application."""

from __future__ import annotations

import hashlib
import inspect
import io
import textwrap
import threading
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MethodType
from typing import Any, Final, NamedTuple

from dbos_orm._queue_settings import QueueSettings
from dbos_orm._schedule_settings import ScheduleSettings
from dbos_orm.errors import (
    ConfigurationError,
    ConflictingRegistrationError,
    InstanceNotRegisteredError,
    NotRegisteredError,
)

_INSIGNIFICANT: Final = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredWorkflow:
    """A workflow function under its name, with what the decorator said of every run of it.

    ``signature`` has no ``self``. A method is run with an instance: bound to one, ``function`` takes the arguments
    alone, and ``class_name`` and ``config_name`` tell under which names its instance is registered. ``queue`` is where
    its starts wait.
    """

    name: str
    function: Callable[..., Any]
    version: str
    is_async: bool
    signature: inspect.Signature | None
    timeout: timedelta | None = None
    max_recovery_attempts: int | None = None
    coerce: Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]] | None = None
    is_method: bool = False
    class_name: str | None = None
    config_name: str | None = None
    queue: str | None = None


class Runnable(NamedTuple):
    """Which stored runs can be continued here: of this name and version, on this instance if it is a method."""

    name: str
    version: str
    class_name: str | None = None
    config_name: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredInstance:
    """An object whose methods are workflows; ``workflows`` are those methods, bound to it, by their names."""

    value: object
    class_name: str
    config_name: str
    workflows: dict[str, RegisteredWorkflow]

    def bound(self, workflow: RegisteredWorkflow) -> RegisteredWorkflow:
        """The method as a workflow of this instance."""
        found = self.workflows.get(workflow.name)
        if found is None:
            found = self.workflows[workflow.name] = replace(
                workflow,
                function=MethodType(workflow.function, self.value),
                class_name=self.class_name,
                config_name=self.config_name,
            )
        return found


@dataclass(slots=True)
class Registry:
    """The functions of one application; safe to use from several threads."""

    application: str
    _workflows: dict[str, RegisteredWorkflow] = field(default_factory=dict)
    _steps: dict[str, Callable[..., Any]] = field(default_factory=dict)
    _started_steps: dict[str, RegisteredWorkflow] = field(default_factory=dict)
    _instances: dict[tuple[str, str], RegisteredInstance] = field(default_factory=dict)
    _by_identity: dict[int, RegisteredInstance] = field(default_factory=dict)
    _queues: dict[str, QueueSettings] = field(default_factory=dict)
    _schedules: dict[str, ScheduleSettings] = field(default_factory=dict)
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
            existing = self._workflows.get(workflow.name) or self._started_steps.get(workflow.name)
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

    def add_startable_step(self, workflow: RegisteredWorkflow) -> None:
        """Have a step be a workflow, too; of steps that are made again and again it is the first one."""
        with self._lock:
            self._started_steps.setdefault(workflow.name, workflow)

    def add_queue(self, settings: QueueSettings) -> None:
        """Declare a queue; the same again changes nothing.

        Raises:
            ConfigurationError: it is declared with other limits.
        """
        with self._lock:
            existing = self._queues.setdefault(settings.name, settings)
        if existing != settings:
            expected = f"the limits that it has already: {existing}"
            raise ConfigurationError("queue", settings, expected, "declare it once")

    def queue(self, name: str) -> QueueSettings | None:
        """What code declares of a queue, if it does."""
        return self._queues.get(name)

    @property
    def queues(self) -> list[QueueSettings]:
        """Every queue that code declares."""
        return list(self._queues.values())

    def add_schedule(self, settings: ScheduleSettings) -> None:
        """Declare a schedule.

        Raises:
            ConflictingRegistrationError: one of this name is declared already.
        """
        with self._lock:
            existing = self._schedules.setdefault(settings.name, settings)
        if existing is not settings:
            known, new = (f"schedule {one.when!r} of {one.workflow_name!r}" for one in (existing, settings))
            raise ConflictingRegistrationError(settings.name, known, new)

    def schedule(self, name: str) -> ScheduleSettings | None:
        """What code declares of a schedule, if it does."""
        return self._schedules.get(name)

    @property
    def schedules(self) -> list[ScheduleSettings]:
        """Every schedule that code declares, by name."""
        return [self._schedules[name] for name in sorted(self._schedules)]

    def add_instance(self, value: object, config_name: str, methods: Iterable[RegisteredWorkflow]) -> None:
        """Make (class, name) stand for this object, which is kept as long as the application.

        Raises:
            ConflictingRegistrationError: they stand for another object already.
            ConfigurationError: the object is registered under another name already.
        """
        key = (type(value).__qualname__, config_name)
        with self._lock:
            existing, same = self._instances.get(key), self._by_identity.get(id(value))
            if existing is not None and existing is not same:
                raise ConflictingRegistrationError(
                    f"{key[0]} {config_name!r}", _kind_of(existing.value), f"another {_kind_of(value)}"
                )
            if same is not None and same is not existing:
                raise ConfigurationError(
                    "name", config_name, f"the name {same.config_name!r}, which this object has", "make another object"
                )
            if existing is None:
                existing = self._instances[key] = RegisteredInstance(value, *key, {})
                self._by_identity[id(value)] = existing
            for method in methods:
                existing.bound(method)

    def bound(self, workflow: RegisteredWorkflow, value: object) -> RegisteredWorkflow:
        """A method as a workflow of this object.

        Raises:
            InstanceNotRegisteredError: the object is not registered, so that nobody could continue the workflow.
        """
        instance = self._by_identity.get(id(value))
        if instance is None:
            class_name = type(value).__qualname__
            names = [name for of_class, name in self._instances if of_class == class_name]
            raise InstanceNotRegisteredError(workflow.name, class_name, names)
        return instance.bound(workflow)

    def workflow(self, name: str, class_name: str | None = None, config_name: str | None = None) -> RegisteredWorkflow:
        """The workflow of this name, bound to its instance if it is a method and the instance is named.

        Raises:
            NotRegisteredError: this process has none.
        """
        workflow = self._workflows.get(name) or self._started_steps.get(name)
        if workflow is None:
            raise NotRegisteredError(name, self._workflows)
        if class_name is None or config_name is None:
            return workflow
        instance = self._instances.get((class_name, config_name))
        if instance is None or name not in instance.workflows:
            names = [name for of_class, name in self._instances if of_class == class_name]
            raise InstanceNotRegisteredError(name, class_name, names)
        return instance.workflows[name]

    def has_workflow(self, name: str) -> bool:
        """Whether this process has a workflow of that name."""
        return name in self._workflows or name in self._started_steps

    @property
    def has_plain_workflows(self) -> bool:
        """Whether any workflow is no coroutine."""
        known = [*list(self._workflows.values()), *list(self._started_steps.values())]
        return any(not workflow.is_async for workflow in known)

    def runnable(self, takes: Callable[[RegisteredWorkflow], bool] = bool) -> list[Runnable]:
        """Everything that this process can continue, of what it takes."""
        known = [*list(self._workflows.values()), *list(self._started_steps.values())]
        functions = [workflow for workflow in known if not workflow.is_method]
        methods = [
            method for instance in list(self._instances.values()) for method in list(instance.workflows.values())
        ]
        return [
            Runnable(one.name, one.version, one.class_name, one.config_name)
            for one in (*functions, *methods)
            if takes(one)
        ]

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


def _kind_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__} object"


def _code_of(function: Callable[..., Any]) -> object:
    return getattr(inspect.unwrap(function), "__code__", function)
