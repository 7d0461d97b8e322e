"""The shape of the repository: sizes, folders, packages, and what must not be there."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ["dbos_orm", "alembic", "tests", "examples", "docs", "benchmarks"]
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
LONGEST_MODULE = 400
IGNORE = re.compile(r"#\s*(type:\s*ignore|noqa|pragma:|mypy:|pyright:|ruff:|flake8:)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("path", [path for path in MODULES if path.is_relative_to(ROOT / "dbos_orm")], ids=name)
def test_the_package_silences_no_tool(path: Path) -> None:
    found = [line for line in path.read_text().splitlines() if IGNORE.search(line)]
    assert found == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_where_the_documentation_says(folder: str) -> None:
    assert (ROOT / folder).is_dir()


def test_the_migration_scripts_do_not_shadow_alembic() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()


def test_every_package_is_shipped() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "dbos_orm").rglob("*.py")}
    expected = {".".join(folder.parts) for folder in folders}
    expected |= {"dbos_orm.migrations", "dbos_orm.migrations.versions"}
    assert set(setup["options"]["packages"].split()) == expected


def test_the_package_is_typed_for_its_users() -> None:
    assert (ROOT / "dbos_orm" / "py.typed").exists()
