"""What the commands print: words for people, JSON for programs, complaints to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

__all__ = ["complain", "say", "say_json", "say_verbatim"]


def say(message: str, *, style: str = "") -> None:
    """Print a line for people; coloured where standard output is a terminal."""
    # A Text, so that brackets in names and URLs are not taken for markup.
    Console(soft_wrap=True, highlight=False).print(Text(message, style=style))


def say_json(value: Any) -> None:
    """Print one JSON document for programs."""
    say_verbatim(json.dumps(value, indent=2) + "\n")


def say_verbatim(text: str) -> None:
    """Print text that goes into a file or another program."""
    sys.stdout.write(text)
    sys.stdout.flush()


def complain(message: str) -> None:
    """Print an error for people, on standard error."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text.assemble(("error: ", "bold red"), message))
