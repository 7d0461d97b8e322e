"""How databases execute the library's own statements: plans, and how many rows and pages were read for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from dbos_orm._dialects._prepared import DirectConnection, Parameters, PoolerNotice, Prepared, PreparingConnection

MODES = ("force_custom_plan", "force_generic_plan")


@dataclass(frozen=True)
class Plan:
    """What EXPLAIN ANALYZE of PostgreSQL said of one execution."""

    mode: str
    tree: Mapping[str, Any]

    @property
    def pages(self) -> int:
        """Pages that were looked at, in the cache or not."""
        return int(self.tree["Shared Hit Blocks"] + self.tree["Shared Read Blocks"])

    def rows_read(self, table: str) -> int:
        """Rows of a table that were looked at, those included that a filter then refused."""
        return sum(
            round(node["Actual Loops"] * (node["Actual Rows"] + _refused(node)))
            for node in _nodes(self.tree)
            if node.get("Relation Name") == table and node["Node Type"] != "ModifyTable"
        )

    def scanned(self) -> set[str]:
        """The tables that were read from one end to the other."""
        return {
            node["Relation Name"]
            for node in _nodes(self.tree)
            if node["Node Type"].endswith("Seq Scan") and node["Actual Loops"]
        }

    def __str__(self) -> str:
        lines = [
            f"{node['Node Type']} {node.get('Relation Name', '')} {node.get('Index Name', '')} "
            f"rows {node['Actual Rows']} (+{_refused(node)}) x {node['Actual Loops']}"
            for node in _nodes(self.tree)
        ]
        return "\n".join([f"{self.mode}, {self.pages} pages", *lines])


def _nodes(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield tree
    for child in tree.get("Plans", ()):
        yield from _nodes(child)


def _refused(node: Mapping[str, Any]) -> float:
    return float(node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0))


class ExplainingConnection(PreparingConnection):
    """Prepares every statement at once, and explains it with both kinds of plan before it is executed.

    It is in a transaction from the beginning, which ``close`` takes back.
    """

    __slots__ = ("plans",)

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, PoolerNotice())
        self.plans: list[Plan] = []
        self.execute("BEGIN")

    def run(self, statement: Prepared, parameters: Parameters) -> list[Sequence[Any]]:
        while (known := self._prepared_as.get(statement) or self._prepared(statement)) is None:
            pass
        self.plans = [self._explained(known.call, parameters, mode) for mode in MODES]
        return self.execute(known.call, parameters)

    def close(self) -> None:
        self.execute("ROLLBACK")
        super().close()

    def _explained(self, call: str, parameters: Parameters, mode: str) -> Plan:
        self.execute(f"SET LOCAL plan_cache_mode = {mode}")
        self.execute("SAVEPOINT explained")
        [[answer]] = self.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}", parameters)
        self.execute("ROLLBACK TO SAVEPOINT explained")
        self.execute("RESET plan_cache_mode")
        return Plan(mode, (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"])


@contextmanager
def explaining(engine: Engine) -> Iterator[ExplainingConnection]:
    """A connection of PostgreSQL that explains what it executes, and takes it all back at the end."""
    connection = ExplainingConnection(engine)
    try:
        yield connection
    finally:
        connection.close()


class PlanningConnection(DirectConnection):
    """Asks SQLite for the plan of every statement before it is executed."""

    __slots__ = ("steps",)

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.steps: list[str] = []

    def run(self, statement: Prepared, parameters: Parameters) -> list[Sequence[Any]]:
        self.steps = [row[3] for row in self.execute(f"EXPLAIN QUERY PLAN {statement.text}", parameters)]
        return super().run(statement, parameters)
