"""The code blocks of the documentation, as programs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?^```python[^\n]*\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class CodeBlock:
    """One ```python block of a page; ``reason`` says why it is only compiled."""

    page: Path
    line: int
    text: str
    reason: str | None

    def compiled(self) -> CodeType:
        """The block under the page's name and line numbers, so that tracebacks and ``inspect`` find it."""
        return compile("\n" * (self.line - 1) + self.text, str(self.page), "exec", dont_inherit=True)


def code_blocks(page: Path) -> Iterator[CodeBlock]:
    """The ```python blocks of a Markdown page, in order."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield CodeBlock(page, line, match["code"], match["reason"])


def run_page(page: Path) -> dict[str, Any]:
    """Run the blocks of a page one after the other, as one module; return its names.

    The module has a name of its own while it runs, under which mapped classes and dataclasses look
    up their annotations. ``if __name__ == "__main__":`` is therefore not entered.
    """
    module = ModuleType(f"page_{page.stem}")
    module.__file__ = str(page)
    sys.modules[module.__name__] = module
    try:
        for block in code_blocks(page):
            code = block.compiled()
            if block.reason is None:
                exec(code, module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module.__dict__
