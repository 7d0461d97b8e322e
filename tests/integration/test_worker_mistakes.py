"""``dbos-orm worker`` that cannot begin: what it says, and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbos_orm.cli import main
from dbos_orm.cli._loading import load_application
from tests.databases import TestDatabase

MODULE = """
from dbos_orm import DBOS

other = DBOS({url!r}, name="other")
dbos = DBOS({url!r}, name="shop")
mail = dbos.queue("mail")


class Holder:
    inner = dbos


number = 7
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes modules into the working directory; they are forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(text: str = MODULE, *, name: str = "worker_shop", url: str = "sqlite:///shop.db") -> None:
        (tmp_path / f"{name}.py").write_text(text.replace("{url!r}", repr(url)))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exited:
        main(["worker", *arguments])
    code = exited.value.code
    assert isinstance(code, int)
    return code, " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("worker_shop", "package.module:name"),
        (":dbos", "package.module:name"),
        ("nowhere:dbos", "there is no 'nowhere'"),
        ("worker_shop.deeper:dbos", "there is no 'worker_shop.deeper'"),
        ("worker_shop:dbsos", "use worker_shop:dbos or worker_shop:other"),
        ("worker_shop:number", "a DBOS or an AsyncDBOS, not int"),
    ],
)
def test_an_application_that_is_not_there(
    module: Callable[..., None], capsys: pytest.CaptureFixture[str], target: str, said: str
) -> None:
    module()
    code, message = refused(capsys, target)
    assert code == 2
    assert said in message
    assert target.split(":", maxsplit=1)[0] in message


def test_an_application_may_be_an_attribute_of_something_else(module: Callable[..., None]) -> None:
    module()
    assert load_application("worker_shop:Holder.inner") is load_application("worker_shop:dbos")


def test_what_a_module_itself_cannot_import_is_its_own_error(module: Callable[..., None]) -> None:
    module("import nothing_like_this\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_like_this"):
        load_application("worker_shop:dbos")


def test_an_application_that_its_module_launches(
    module: Callable[..., None], capsys: pytest.CaptureFixture[str], sqlite_database: TestDatabase
) -> None:
    module(f"{MODULE}\ndbos.launch()\n", url=str(sqlite_database.url))
    code, message = refused(capsys, "worker_shop:dbos")
    sys.modules["worker_shop"].dbos.shutdown()
    assert code == 2
    assert "__main__" in message


def test_tables_that_are_missing(module: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    module()
    code, message = refused(capsys, "worker_shop:dbos")
    assert code == 1
    assert "run: dbos-orm migrate" in message


def test_a_queue_that_nobody_has_declared(
    module: Callable[..., None], capsys: pytest.CaptureFixture[str], sqlite_database: TestDatabase
) -> None:
    module(url=str(sqlite_database.url))
    code, message = refused(capsys, "worker_shop:dbos", "--queue", "mial")
    assert code == 1
    assert "'mial'" in message
    assert "'mail'" in message


def test_a_module_to_import_that_is_not_there(module: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    module()
    code, message = refused(capsys, "worker_shop:dbos", "--import", "worker_tasks")
    assert code == 2
    assert "there is no 'worker_tasks'" in message


@pytest.mark.parametrize("option", [("--concurrency", "0"), ("--grace", "-1")])
def test_numbers_that_cannot_be(
    module: Callable[..., None], capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    module()
    code, message = refused(capsys, "worker_shop:dbos", *option)
    assert code == 2
    assert option[0] in message
