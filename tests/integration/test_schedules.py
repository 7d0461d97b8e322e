"""Schedules that code declares: each slot becomes one run, and missed ones what the schedule says."""

from __future__ import annotations

from datetime import datetime, timedelta

from dbos_orm import DBOS
from tests.databases import TestDatabase
from tests.integration.schedules import runs_of, slot_id
from tests.processes import eventually


def test_a_slot_is_run_when_it_is_due(database: TestDatabase) -> None:
    dbos = DBOS(database.make_engine(), name="shop")
    came: list[tuple[datetime, datetime]] = []

    @dbos.scheduled("* * * * * *", name="tick")
    @dbos.workflow
    def note(scheduled_at: datetime, actual_at: datetime) -> None:
        came.append((scheduled_at, actual_at))

    with dbos.launch():
        eventually(lambda: len(came) >= 3)

    slots = sorted(slot for slot, _ in came)
    assert [slot - slots[0] for slot in slots] == [timedelta(seconds=number) for number in range(len(slots))]
    for slot, actual in came:
        assert slot.utcoffset() == actual.utcoffset() == timedelta(0)
        assert timedelta(0) <= actual - slot < timedelta(seconds=5)
    assert set(runs_of(database, "tick")) >= {slot_id("tick", slot) for slot in slots}
