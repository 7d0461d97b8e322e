"""Every effect of every flow is a place to die at: the machine tries them all, on both sides of each."""

from __future__ import annotations

from dbos_orm import DBOS, AsyncDBOS
from tests.databases import TestDatabase
from tests.dropped_async_workflows import register_async
from tests.dropped_workflows import Journal, register
from tests.integration.trials import Trial, live, live_async

OUTSIDE_A_RUN = {"plain_transaction", "start_at_once", "start_debounced", "start_many"}
"""Flows that record nothing, so that nothing is recovered."""
ELSEWHERE = "second_database.py"
"""Flows that ``test_every_effect_elsewhere`` tries."""


def test_workflows_dropped_at_any_effect_end_as_if_nothing_had_happened(database: TestDatabase) -> None:
    trial = Trial(database, register(DBOS(name="names"), Journal()))
    left_out = live(trial, database.make_engine(), register)
    sites = {str(site) for site in left_out if site.function not in OUTSIDE_A_RUN and site.module != ELSEWHERE}
    assert not sites, "add a workflow that gets there"


async def test_async_workflows_dropped_at_any_effect_end_as_if_nothing_had_happened(database: TestDatabase) -> None:
    trial = Trial(database, register_async(AsyncDBOS(name="names"), Journal()))
    await live_async(trial, database.make_async_engine(), register_async)
