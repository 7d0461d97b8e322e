"""An installed package, a wheel or editable, migrates a database from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from dbos_orm import schema
from dbos_orm._store.revision import HEAD
from tests.databases import TestDatabase

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "env.py",
    "script.py.mako",
    *(f"versions/{p.name}" for p in (ROOT / "alembic/versions").glob("*.py")),
}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    without = {"PYTHONPATH", "DBOS_DATABASE_URL"}
    inherited = {name: value for name, value in os.environ.items() if name not in without}
    done = subprocess.run(
        command, cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_of_the_sources(folder: Path) -> Path:
    """What a fresh clone has: a stale ``build/`` of the working tree would be shipped with the wheel."""
    sources = folder / "sources"
    for name in ("dbos_orm", "alembic"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    return sources


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the libraries of this one, and without this checkout."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Environment:
        environment = cls(folder)
        run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        # A folder named in a .pth file is searched, but its own .pth files (one of which leads to
        # this checkout) are not read.
        (environment.packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return environment

    @property
    def packages(self) -> Path:
        [found] = self.folder.glob("lib/python*/site-packages")
        return found

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    def install(self, *arguments: str | Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", self.program("python"))
        options = ("--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed", "--quiet")
        run(*pip, "install", *options, *arguments, cwd=self.folder)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a source distribution and of the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    sources = copy_of_the_sources(folder)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, sources, cwd=folder)
    return folder


def wheel_of(distributions: Path) -> Path:
    [wheel] = distributions.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_scripts_and_no_second_alembic(distributions: Path) -> None:
    with zipfile.ZipFile(wheel_of(distributions)) as wheel:
        names = set(wheel.namelist())
    prefix = "dbos_orm/migrations/"
    assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} == SCRIPTS
    assert "dbos_orm/py.typed" in names
    assert {name.split("/", 1)[0].split("-")[0] for name in names} == {"dbos_orm"}


def test_the_source_distribution_holds_the_scripts(distributions: Path) -> None:
    [sdist] = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {f"alembic/{script}" for script in SCRIPTS} <= names


def migrates(environment: Environment, database: TestDatabase, folder: Path) -> str:
    """Migrate with the installed command; return where the package was found."""
    url = database.url.render_as_string(hide_password=False)
    run(environment.program("dbos-orm"), "migrate", cwd=folder, DBOS_DATABASE_URL=url)
    run(environment.program("python"), "-m", "dbos_orm", "check", cwd=folder, DBOS_DATABASE_URL=url)
    assert schema.current(database.make_engine()) == HEAD
    where = "import dbos_orm.schema; print(dbos_orm.schema.script_location())"
    return run(environment.program("python"), "-c", where, cwd=folder).strip()


@pytest.fixture(scope="module")
def with_the_wheel(distributions: Path) -> Environment:
    environment = Environment.create(distributions / "venv_of_the_wheel")
    environment.install(wheel_of(distributions))
    return environment


@pytest.fixture(scope="module")
def with_an_editable_install(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("editable")
    environment = Environment.create(folder / "venv")
    environment.install("--editable", copy_of_the_sources(folder))
    return environment


def test_an_installed_wheel_migrates(with_the_wheel: Environment, tmp_path: Path, empty_database: TestDatabase) -> None:
    found = migrates(with_the_wheel, empty_database, tmp_path)
    assert Path(found) == with_the_wheel.packages / "dbos_orm" / "migrations"


def test_an_editable_install_migrates(
    with_an_editable_install: Environment, tmp_path: Path, empty_database: TestDatabase
) -> None:
    found = migrates(with_an_editable_install, empty_database, tmp_path)
    assert Path(found) == with_an_editable_install.folder.parent / "sources" / "alembic"
