"""What one process of a contender is asked to do. Standard library only: it is read in environments of others too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

# The queue, and the name of the task or workflow, wherever they need one.
QUEUE = "benchmark"
# How many of them each may run at once in one process, where it can be said.
CONCURRENCY = 64


class Part(StrEnum):
    """What a process does."""

    FILL = "fill"  # create the tables and the queue, and put `count` into it in one transaction if possible
    CONSUME = "consume"  # run what is in the queue until told to end
    ECHO = "echo"  # start one after another, wait for each, and consume in the same process
    CALL = "call"  # the same where another process consumes
    START = "start"  # start `count`, one after another, from one thread; nobody consumes
    CLAIM = "claim"  # claim `count` times, twenty at a time, without running what was claimed
    START_MANY = "start_many"  # start `count` in one transaction; nobody consumes


@dataclass(frozen=True)
class QueueTask:
    """One part; ``url`` is a database of the contender's own, without a driver."""

    part: Part
    count: int = 0
    is_async: bool = False
    url: str = ""

    def to_json(self) -> str:
        """One line, for the command line of the process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> QueueTask:
        """The task that ``to_json`` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "part": Part(fields["part"])})
