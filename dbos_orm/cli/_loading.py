"""Finding the application that a command line names: ``package.module:dbos``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from dbos_orm.app import DBOS
from dbos_orm.async_app import AsyncDBOS
from dbos_orm.errors import ConfigurationError

__all__ = ["import_module", "load_application"]

_FORM: Final = "package.module:name, the module that makes the application and the name that it has there"


def load_application(target: str) -> DBOS | AsyncDBOS:
    """Import the module of ``package.module:name``, with the working directory on the path, and give what it names.

    What the module itself raises is raised as it is.

    Raises:
        ConfigurationError: there is no such module, or no application of that name in it, or it is launched.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError("application", target, _FORM, "write for example shop.workflows:dbos")
    module = import_module(module_name)
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigurationError("application", target, _FORM, f"{found!r} has no {name!r}; {_offer(module)}")
        found = getattr(found, name)
    if not isinstance(found, (DBOS, AsyncDBOS)):
        raise ConfigurationError(
            "application", target, f"a DBOS or an AsyncDBOS, not {type(found).__name__}", _offer(module)
        )
    if found.is_launched:
        raise ConfigurationError(
            "application",
            target,
            "an application that its module does not launch when it is imported",
            'put the launch under `if __name__ == "__main__":`',
        )
    return found


def import_module(name: str) -> ModuleType:
    """Import a module by its name, with the working directory on the path; raises as ``load_application``."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # What the module itself imports and does not find is its own error.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            "module", name, f"a module that can be imported in {here}", f"there is no {error.name!r}"
        ) from error


def _offer(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, (DBOS, AsyncDBOS)))
    if not names:
        return f"{module.__name__} has no application"
    return "use " + " or ".join(f"{module.__name__}:{name}" for name in names)
