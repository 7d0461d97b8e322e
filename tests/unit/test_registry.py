"""Names and versions of functions."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbos_orm._registry import RegisteredWorkflow, Registry, Runnable, place_of, version_of
from dbos_orm.errors import ConflictingRegistrationError, NotRegisteredError


def loaded(folder: Path, source: str) -> Callable[..., Any]:
    """The function ``work`` of a module with this source, which can be read."""
    file = folder / f"module_{len(list(folder.iterdir()))}.py"
    file.write_text(textwrap.dedent(source))
    names: dict[str, Any] = {"__name__": file.stem}
    exec(compile(file.read_text(), str(file), "exec"), names)
    found: Callable[..., Any] = names["work"]
    return found


ORIGINAL = """
    def work(number):
        return number + 1
"""


@pytest.mark.parametrize(
    "same",
    [
        """
        # A comment.


        def work(number):  # another one

            return number + 1
        """,
        """
        def decorated(function):
            return function

        @decorated
        def work(number):
            return number + 1
        """,
        """
        if True:
            def work(number):
                    return number + 1
        """,
        """
        def other():
            pass

        def work( number ):
            return (number
                    + 1) if False else number + 1
        """,
    ],
    ids=["comments", "decorators", "indentation", "spaces"],
)
def test_what_does_not_change_the_code_does_not_change_the_version(
    tmp_path: Path, same: str, request: pytest.FixtureRequest
) -> None:
    original = version_of(loaded(tmp_path, ORIGINAL), "work")
    is_same = version_of(loaded(tmp_path, same), "work") == original
    assert is_same is ("spaces" not in request.node.name)


@pytest.mark.parametrize(
    "changed",
    [
        "def work(number):\n    return number + 2\n",
        "def work(number, other=1):\n    return number + 1\n",
        "def work(number):\n    'documented'\n    return number + 1\n",
        "async def work(number):\n    return number + 1\n",
        "def work(number):\n    if number:\n        number\n    return number + 1\n",
    ],
)
def test_changed_code_is_another_version(tmp_path: Path, changed: str) -> None:
    assert version_of(loaded(tmp_path, changed), "work") != version_of(loaded(tmp_path, ORIGINAL), "work")


def test_the_place_of_a_line_in_a_block_is_a_difference(tmp_path: Path) -> None:
    inside = loaded(tmp_path, "def work(n):\n    if n:\n        n += 1\n        n += 2\n    return n\n")
    behind = loaded(tmp_path, "def work(n):\n    if n:\n        n += 1\n    n += 2\n    return n\n")
    assert version_of(inside, "work") != version_of(behind, "work")


def test_without_source_the_name_is_the_version() -> None:
    names: dict[str, Any] = {}
    exec("def work(): return 1", names)
    assert version_of(names["work"], "work").startswith("name-")
    assert version_of(names["work"], "work") == version_of(len, "work")
    assert version_of(names["work"], "work") != version_of(names["work"], "other")


def workflow(name: str, function: Callable[..., Any]) -> RegisteredWorkflow:
    return RegisteredWorkflow(name, function, "1", is_async=False, signature=None)


def test_one_name_stands_for_one_workflow() -> None:
    registry = Registry("shop")
    registry.add_workflow(workflow("work", place_of))
    with pytest.raises(ConflictingRegistrationError) as caught:
        registry.add_workflow(workflow("work", version_of))
    assert "place_of" in caught.value.existing
    assert "version_of" in caught.value.new
    assert registry.workflow("work").function is place_of
    assert registry.runnable() == [Runnable("work", "1")]
    with pytest.raises(NotRegisteredError):
        registry.workflow("missing")


def test_a_step_may_be_made_again_from_the_same_code() -> None:
    registry = Registry("shop")

    def make() -> Callable[[], int]:
        return lambda: 1

    registry.add_step("one", make())
    registry.add_step("one", make())
    assert registry.step_count == 1
    with pytest.raises(ConflictingRegistrationError):
        registry.add_step("one", len)


def test_the_place_names_file_and_line() -> None:
    assert place_of(workflow).startswith("tests.unit.test_registry.workflow (")
    assert place_of(len) == "builtins.len"
