"""What a contender is asked to do. Standard library only: it is read in environments of others too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Task:
    """``workflows`` workflows of ``steps`` steps each, one after another or all at once.

    A step does nothing and returns its number. With ``is_transactional`` it inserts one row of the application,
    in one transaction with its record. ``url`` is a database of the contender's own, without a driver.
    """

    workflows: int
    steps: int
    is_concurrent: bool = False
    is_async: bool = False
    is_transactional: bool = False
    is_sqlite: bool = False
    url: str = ""

    @property
    def warm_up(self) -> int:
        """How many workflows are run before, in the same way, so that connections and threads are there."""
        return min(self.workflows, 64 if self.is_concurrent else 10)

    @property
    def units(self) -> int:
        """What a rate is counted in: steps, or workflows where there are no steps."""
        return self.workflows * max(self.steps, 1)

    def at(self, url: str) -> Task:
        """The same work on another database."""
        return replace(self, url=url)

    def to_json(self) -> str:
        """One line, for the command line of a worker."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The task that ``to_json`` wrote."""
        return cls(**json.loads(text))
