"""What type checkers accept and refuse of a user's code: each line of tests/typing, under mypy and basedpyright.

A line that ends with ``# refused`` must be an error to both checkers, any other line to neither. Types that are
inferred are written down with ``assert_type``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "typing"
REFUSED = "# refused"
MYPY_ERROR = re.compile(r"^tests/typing/(?P<file>[^:]+):(?P<line>\d+): error: (?P<message>.*)$", re.MULTILINE)

Errors = dict[tuple[str, int], str]


def expected() -> set[tuple[str, int]]:
    """The lines that are to be refused."""
    return {
        (file.name, number)
        for file in FOLDER.glob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if line.endswith(REFUSED)
    }


def found_by_mypy() -> Errors:
    command = [sys.executable, "-m", "mypy", "--strict", *(str(file.relative_to(ROOT)) for file in FOLDER.glob("*.py"))]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return {(one["file"], int(one["line"])): one["message"] for one in MYPY_ERROR.finditer(ran.stdout)}


def found_by_basedpyright() -> Errors:
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(FOLDER)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    errors = [one for one in json.loads(ran.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    return {(Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"] for one in errors}


def difference(found: Errors) -> dict[tuple[str, int], str]:
    """The lines about which the checker is of another opinion."""
    accepted = dict.fromkeys(expected() - set(found), "accepted")
    return accepted | {place: message for place, message in found.items() if place not in expected()}


def test_mypy_accepts_right_calls_and_refuses_wrong_ones() -> None:
    assert difference(found_by_mypy()) == {}


def test_basedpyright_accepts_right_calls_and_refuses_wrong_ones() -> None:
    assert difference(found_by_basedpyright()) == {}


def test_there_is_something_to_refuse() -> None:
    assert len(expected()) > 70
