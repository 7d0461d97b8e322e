"""Arguments validated and converted by their annotations, where a workflow asks for it; pydantic does the work."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import typing
from collections.abc import Callable
from typing import Any

from dbos_orm.errors import ArgumentError, ConfigurationError


class Coercion:
    """Gives arguments as the annotations of the function want them: ``"42"`` as an int, a dict as a model.

    Annotations that cannot be resolved yet when the function is decorated are at the first call.

    Raises:
        ConfigurationError: pydantic is not installed, or has no idea of an annotation.
    """

    def __init__(self, name: str, function: Callable[..., Any], signature: inspect.Signature | None) -> None:
        if importlib.util.find_spec("pydantic") is None:
            raise ConfigurationError("coerce", True, "pydantic to be installed", "pip install pydantic")
        if signature is None:
            raise ConfigurationError("coerce", True, f"a signature of {name!r}", "decorate a def")
        # By name: the library works without it, and importing it takes longer than importing the library.
        self._pydantic: Any = importlib.import_module("pydantic")
        self._name, self._function, self._signature = name, function, signature
        self._adapters: dict[str, Any] | None = self._resolved(is_last=False)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, converted.

        Raises:
            ArgumentError: one of them is not what its annotation says, and cannot be made so.
            TypeError: the function does not take these arguments.
        """
        if self._adapters is None:
            self._adapters = self._resolved(is_last=True)
        bound = self._signature.bind(*args, **kwargs)
        for name, adapter in (self._adapters or {}).items():
            if name in bound.arguments:
                kind = self._signature.parameters[name].kind
                bound.arguments[name] = self._converted(name, adapter, bound.arguments[name], kind)
        return bound.args, bound.kwargs

    def _converted(self, name: str, adapter: Any, value: Any, kind: Any) -> Any:
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(self._validated(f"{name}[{index}]", adapter, one) for index, one in enumerate(value))
        if kind is inspect.Parameter.VAR_KEYWORD:
            return {key: self._validated(key, adapter, one) for key, one in value.items()}
        return self._validated(name, adapter, value)

    def _validated(self, name: str, adapter: Any, value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except self._pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = name + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            raise ArgumentError(self._name, path, first["msg"], repr(first["input"])) from error

    def _resolved(self, *, is_last: bool) -> dict[str, Any] | None:
        try:
            hints = typing.get_type_hints(self._function, include_extras=True)
            names = [name for name in self._signature.parameters if name in hints]
            return {name: self._pydantic.TypeAdapter(hints[name]) for name in names}
        except (NameError, AttributeError) as error:
            if is_last:
                raise self._unusable(error) from error
            return None
        except self._pydantic.errors.PydanticUserError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ConfigurationError:
        problem = str(error).partition("\n")[0]
        return ConfigurationError(
            "coerce", self._name, f"annotations that pydantic can use ({problem})", "leave it out"
        )
