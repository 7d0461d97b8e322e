"""Finding and reading text files: nothing here knows of workflows or databases."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
_KINDS = {".py", ".md", ".rst", ".txt"}
_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
_HEADING = re.compile(r"^(?:(?:async )?(?:def|class) (\w+)|#+ (\S.*?))(?=[:(\s]|$)")
_WORD = re.compile(r"[a-zA-Z]{4,}")
_MOST_FREQUENT = 25


@dataclass(frozen=True)
class Part:
    """A section: where it begins, its title, and how many words it has."""

    line: int
    title: str
    words: int


@dataclass(frozen=True)
class Contents:
    """What is in a document: its lines, its sections, and its most frequent words with their counts."""

    lines: int
    parts: list[Part]
    terms: dict[str, int]


def find_documents(folder: Path) -> list[str]:
    """The paths of all text files of a folder, within it, in their order."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix in _KINDS and path.is_file())
    return sorted(str(path) for path in found if not _LEFT_OUT.intersection(path.parts))


def read_document(path: Path) -> Contents:
    """Split a file at its top-level functions, classes and headings, and count words."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    starts = [(1, path.name)]
    for number, line in enumerate(lines, start=1):
        heading = _HEADING.match(line)
        if heading and number > 1:
            starts.append((number, heading[1] or heading[2]))
    ends = [start for start, _ in starts[1:]] + [len(lines) + 1]
    parts = [
        Part(start, title, sum(len(_WORD.findall(line)) for line in lines[start - 1 : end - 1]))
        for (start, title), end in zip(starts, ends, strict=True)
    ]
    words = Counter(word.lower() for line in lines for word in _WORD.findall(line))
    return Contents(len(lines), parts, dict(words.most_common(_MOST_FREQUENT)))
