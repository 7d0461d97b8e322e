"""Where the flows yield effects, read from their source: none may be left out of what a test tries."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from dbos_orm import _flows
from dbos_orm._flows import effects
from dbos_orm._flows.effects import Effect

_EFFECTS = {name for name, kind in vars(effects).items() if isinstance(kind, type) and issubclass(kind, Effect)}


class Site(NamedTuple):
    """One ``yield from`` of an effect."""

    module: str
    function: str
    effect: str
    first_line: int
    last_line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.first_line} {self.function} yields {self.effect}"


def sites() -> Iterator[Site]:
    """Every place in the flows that yields an effect."""
    (folder,) = _flows.__path__
    for file in sorted(Path(folder).glob("*.py")):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                yield from _sites_of(file.name, function)


def unseen(seen: Iterable[tuple[CodeType, int, type[Effect[Any]]]]) -> set[Site]:
    """The places from which none of the seen effects (code, line, kind) came."""
    places = {(Path(code.co_filename).name, line, kind.__name__) for code, line, kind in seen}
    return {
        site
        for site in sites()
        if not any((site.module, line, site.effect) in places for line in range(site.first_line, site.last_line + 1))
    }


def _sites_of(module: str, function: ast.FunctionDef) -> Iterator[Site]:
    for node in ast.walk(function):
        if isinstance(node, ast.YieldFrom) and isinstance(node.value, ast.Call):
            called = node.value.func
            if isinstance(called, ast.Name) and called.id in _EFFECTS:
                yield Site(module, function.name, called.id, node.lineno, node.end_lineno or node.lineno)
