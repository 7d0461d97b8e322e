"""Runs every check of the project: ``python -m tests``, with further arguments for pytest.

All of them run, also after one has failed; the exit code is then not 0. pytest comes last, so that
its closing line is the last line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable

CHECKS: dict[str, list[str]] = {
    "ruff check": [PYTHON, "-m", "ruff", "check", "."],
    "ruff format": [PYTHON, "-m", "ruff", "format", "--check", "."],
    "mypy": [PYTHON, "-m", "mypy"],
    "import-linter": [str(Path(PYTHON).parent / "lint-imports")],
}


def main(arguments: Sequence[str]) -> int:
    """Run the checks and then pytest; return 1 if any has failed."""
    failed = [name for name, command in CHECKS.items() if not check(name, command)]
    print(f"failed: {', '.join(failed)}" if failed else "all of these passed", "- now pytest", flush=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parallel = ["-n", str(cores), "--dist", "worksteal"]
    tests = subprocess.run([PYTHON, "-m", "pytest", *parallel, *arguments], cwd=ROOT, check=False)
    return 1 if failed or tests.returncode else 0


def check(name: str, command: Sequence[str]) -> bool:
    """Run one check, report it with its time, and say whether it passed."""
    print(f"== {name}", flush=True)
    started = time.perf_counter()
    passed = subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    print(f"== {name}: {'passed' if passed else 'FAILED'} in {time.perf_counter() - started:.1f} s", flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
