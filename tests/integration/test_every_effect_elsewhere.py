"""``test_every_effect`` for transactions on another database than the workflow's."""

from __future__ import annotations

from functools import partial

import pytest

from dbos_orm import DBOS, AsyncDBOS
from tests.databases import POSTGRESQL, SQLITE
from tests.dropped_elsewhere import register_elsewhere, register_elsewhere_async
from tests.dropped_workflows import Journal
from tests.integration.pairs import Pair
from tests.integration.trials import Trial, live, live_async

SECOND = "second_database.py"


def test_workflows_on_two_databases_dropped_at_any_effect_end_as_if_nothing_had_happened(pair: Pair) -> None:
    register = partial(register_elsewhere, maker=pair.maker())
    trial = Trial(pair.main, register(DBOS(name="names"), Journal()), elsewhere=pair.other, at_least=80)
    left_out = live(trial, pair.main.make_engine(), register)
    assert not {str(site) for site in left_out if site.module == SECOND}, "add a workflow that gets there"


@pytest.mark.parametrize("pair", [(POSTGRESQL, SQLITE), (SQLITE, POSTGRESQL)], ids="-".join, indirect=True)
async def test_async_workflows_on_two_databases_dropped_at_any_effect_end_as_if_nothing_had_happened(
    pair: Pair,
) -> None:
    register = partial(register_elsewhere_async, maker=pair.async_maker())
    trial = Trial(pair.main, register(AsyncDBOS(name="names"), Journal()), elsewhere=pair.other, at_least=80)
    await live_async(trial, pair.main.make_async_engine(), register)
