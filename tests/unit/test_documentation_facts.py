"""What the pages say of settings, and where they lead, is so."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import dbos_orm
from dbos_orm import Config, Retry, WorkflowOptions, WorkflowState

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \|", re.MULTILINE)


def table(page: Path, heading: str) -> dict[str, str]:
    """The first two columns of the rows of one section."""
    section = page.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return dict(ROW.findall(section))


def test_the_table_of_settings_is_the_config() -> None:
    written = table(DOCS / "recovery.md", "Settings")
    assert written == {field.name: _shown(field.default) for field in fields(Config)}


def test_the_table_of_retries_is_the_class() -> None:
    written = table(DOCS / "steps.md", "Retries")
    expected = {name: _shown(value) for name, value in Retry()._asdict().items()}
    assert written == expected | {"retry_if": "`(Exception,)`"}


def test_the_table_of_options_is_complete() -> None:
    assert set(table(DOCS / "workflows.md", "Options")) == set(WorkflowOptions.__annotations__)


def test_every_state_of_a_workflow_is_named() -> None:
    text = (DOCS / "workflows.md").read_text()
    # DELAYED comes with queues.
    assert [state for state in WorkflowState if state not in text] == [WorkflowState.DELAYED]


def _shown(value: object) -> str:
    return (
        str(value)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else f"`{value!r}`".replace("'", '"')
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{page.name} leads to {target}"
        assert not anchor or anchor in anchors(found), f"{page.name} leads to {target}"


def test_every_change_has_a_number_of_its_own() -> None:
    numbers = [page.name[:4] for page in sorted((DOCS / "changes").glob("[0-9]*.md"))]
    assert numbers == sorted(set(numbers))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_first_one() -> None:
    reached = {ROOT / "README.md"}
    todo = list(reached)
    while todo:
        page = todo.pop()
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(page.read_text())}
        new = {target for target in targets if target.suffix == ".md"} - reached
        reached |= new
        todo += new
    without_fragments = {page for page in PAGES if not re.match(r"\d{4}-", page.name)}
    assert without_fragments <= reached


def test_every_module_and_package_is_on_a_floor_of_the_picture() -> None:
    picture = (DOCS / "architecture.md").read_text().split("```text", 1)[1].split("```", 1)[0]
    shown = set(re.findall(r"\w+", picture))
    package = ROOT / "dbos_orm"
    modules = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    assert modules | packages <= shown


def test_what_is_imported_from_the_front_door_is_exported_there() -> None:
    imported = re.compile(r"^from dbos_orm import (.+)$", re.MULTILINE)
    names = {name for page in PAGES for line in imported.findall(page.read_text()) for name in line.split(", ")}
    assert names - {"schema"} <= set(dbos_orm.__all__)
