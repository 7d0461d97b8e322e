"""What the documentation shows works: its Python blocks are run, each page as one program.

``<!-- not run: reason -->`` directly above a block has it compiled only. Other languages are not run.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation import code_blocks, run_page

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `sqlite:///shop.db` of a page is a new file in an empty folder.
    monkeypatch.chdir(tmp_path)
    run_page(page)


def test_the_tests_that_a_page_shows_pass(tmp_path: Path) -> None:
    page = tmp_path / "test_page.py"
    page.write_text("\n\n".join(block.text for block in code_blocks(ROOT / "docs" / "testing.md")))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:postgresql", page.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "3 passed" in done.stdout, done.stdout


PAGE = """# A page

```python
from dataclasses import dataclass

@dataclass
class Order:
    total: "int"
```

```console
not run
```

<!-- not run: needs a server -->
```python
raise RuntimeError("run")
```

Text.

```python
def double(order: Order) -> int:
    return 2 * order.total

assert double(Order(2)) == 4
```
"""


def test_blocks_of_a_page_share_one_namespace_and_have_a_source(tmp_path: Path) -> None:
    page = tmp_path / "orders.md"
    page.write_text(PAGE)
    double = run_page(page)["double"]
    assert inspect.getsource(double) == "def double(order: Order) -> int:\n    return 2 * order.total\n"


def test_a_block_is_found_with_its_line_and_reason(tmp_path: Path) -> None:
    page = tmp_path / "orders.md"
    page.write_text(PAGE)
    assert [(block.line, block.reason) for block in code_blocks(page)] == [
        (4, None),
        (17, "needs a server"),
        (23, None),
    ]


def test_a_failing_block_fails_at_its_line(tmp_path: Path) -> None:
    page = tmp_path / "orders.md"
    page.write_text("# A page\n\n```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as failure:
        run_page(page)
    assert failure.traceback[-1].path == page
    assert failure.traceback[-1].lineno == 3


def test_a_block_that_is_not_run_is_still_compiled(tmp_path: Path) -> None:
    page = tmp_path / "orders.md"
    page.write_text("<!-- not run: a sketch -->\n```python\ndef (:\n```\n")
    with pytest.raises(SyntaxError):
        run_page(page)
