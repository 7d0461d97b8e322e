"""Replays: a workflow that was interrupted sees what it saw before, and continues behind it."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime

import pytest

from dbos_orm import DBOS
from dbos_orm.errors import NonDeterministicError
from tests.integration.shop import Interruption
from tests.processes import PATIENCE


def test_time_and_chance_are_the_same_in_a_replay(dbos: DBOS) -> None:
    seen: list[tuple[object, ...]] = []

    @dbos.step
    def draw() -> tuple[float, uuid.UUID]:
        return dbos.random.random(), dbos.uuid()

    @dbos.workflow
    def play() -> None:
        seen.append((dbos.now(), dbos.uuid(), dbos.random.random(), dbos.random.choice("abc"), draw()))
        if len(seen) == 1:
            raise Interruption

    with pytest.raises(Interruption):
        play.options(workflow_id="game")()
    dbos.handle("game").result(PATIENCE)
    assert seen[0] == seen[1]
    now, made, *_ = seen[0]
    assert isinstance(now, datetime)
    assert abs((datetime.now(UTC) - now).total_seconds()) < PATIENCE
    assert isinstance(made, uuid.UUID)
    assert made.version == 4


def test_random_is_a_source_of_its_own_for_every_run(dbos: DBOS) -> None:
    @dbos.workflow
    def play() -> float:
        assert isinstance(dbos.random, random.Random)
        return dbos.random.random()

    assert play() != play()


def test_a_sleep_is_not_slept_again(dbos: DBOS) -> None:
    wakes: list[datetime] = []

    @dbos.workflow
    def nap() -> None:
        dbos.sleep(0.2)
        wakes.append(datetime.now(UTC))
        if len(wakes) == 1:
            raise Interruption

    with pytest.raises(Interruption):
        nap.options(workflow_id="nap")()
    dbos.handle("nap").result(PATIENCE)
    (step,) = dbos.handle("nap").steps()
    assert step.kind == "sleep"
    assert step.wake_at is not None
    assert step.wake_at <= wakes[0]


def test_a_changed_workflow_is_told_apart_by_both_names(dbos: DBOS) -> None:
    runs: list[int] = []

    @dbos.step(name="charge_card")
    def charge() -> None: ...

    @dbos.step(name="reserve_stock")
    def reserve() -> None: ...

    @dbos.workflow
    def pay() -> None:
        runs.append(1)
        if len(runs) == 1:
            charge()
            raise Interruption
        reserve()

    with pytest.raises(Interruption):
        pay.options(workflow_id="order-17")()
    with pytest.raises(NonDeterministicError) as caught:
        dbos.handle("order-17").result(PATIENCE)
    error = caught.value
    assert (error.workflow_id, error.step, error.recorded, error.called) == (
        "order-17", "1", "charge_card", "reserve_stock",
    )  # fmt: skip
    assert "step 1: recorded 'charge_card', but the code now calls 'reserve_stock'; " in str(error)


def test_a_replay_gets_the_recorded_child(dbos: DBOS) -> None:
    runs: list[tuple[str, bool, int]] = []

    @dbos.workflow
    def ship() -> int:
        return len(runs)

    @dbos.workflow
    def pay() -> None:
        handle = ship.start()
        runs.append((handle.workflow_id, handle.created, handle.result()))
        if len(runs) == 1:
            raise Interruption

    with pytest.raises(Interruption):
        pay.options(workflow_id="p")()
    dbos.handle("p").result(PATIENCE)
    assert runs == [("p-1", True, 0), ("p-1", True, 0)]
