"""Who is dead, told by one steady clock: a whole lease of silence, heard from beginning to end by one who was well."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from dbos_orm import Config
from dbos_orm._context import Launch
from dbos_orm._services import leases
from dbos_orm._services.leases import LeaseObserver, LeaseService
from dbos_orm._store.executors import ObservedExecutor

LEASE, HEARTBEAT = 30.0, 10.0


class SteadyClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gateway:
    """A database that answers at once, later, or not at all."""

    def __init__(self, clock: SteadyClock) -> None:
        self._clock = clock
        self.answer_seconds = 0.0
        self.is_alive = True
        self.is_away = False

    def change(self, verb: object) -> None: ...

    def blocking(self, call: Callable[[], bool]) -> bool:
        return call()

    def transaction(self, verb: object) -> bool:
        self._clock.now += self.answer_seconds
        if self.is_away:
            raise ConnectionError
        return self.is_alive


class Observation:
    """A process that observes another one, whose heartbeat is ``heartbeat``."""

    def __init__(self, clock: SteadyClock) -> None:
        self.clock = clock
        self.gateway = Gateway(clock)
        self.launch = Launch("observer", lease_ends=clock.now + LEASE)
        environment = SimpleNamespace(application="shop", config=Config(lease=LEASE, heartbeat=HEARTBEAT))
        binding: Any = SimpleNamespace(
            environment=environment,
            heartbeat_gateway=self.gateway,
            dialect=None,
            runs=SimpleNamespace(all=list),
        )
        self.leases = LeaseService(binding, self.launch)
        self.leases.register()
        self.observer = LeaseObserver(self.leases)
        self.heartbeat = 1

    def sees_death(self) -> bool:
        other = ObservedExecutor("other", self.heartbeat, timedelta(seconds=LEASE), None, None, None, None)
        return self.observer.dead([other]) != []

    def live(self, seconds: float) -> bool:
        """Let time pass, renewing and looking as the services do; whether the other one was found dead."""
        ends = self.clock.now + seconds
        was_found = False
        while ends - self.clock.now > 0.001:
            step = min(HEARTBEAT, ends - self.clock.now)
            for _ in range(10):
                self.clock.now += step / 10
                was_found = self.sees_death() or was_found
            self.leases.run_once()
        return was_found


@pytest.fixture
def observation(monkeypatch: pytest.MonkeyPatch) -> Observation:
    clock = SteadyClock()
    monkeypatch.setattr(leases, "steady_seconds", clock)
    return Observation(clock)


def test_a_process_that_is_silent_for_less_than_its_lease_is_alive(observation: Observation) -> None:
    assert not observation.sees_death()
    assert not observation.live(LEASE - 1)


def test_a_process_that_is_silent_for_a_whole_lease_is_dead(observation: Observation) -> None:
    assert not observation.sees_death()
    assert observation.live(LEASE + 1)


def test_a_process_that_renewed_is_alive(observation: Observation) -> None:
    for _ in range(10):
        assert not observation.live(LEASE - 1)
        observation.heartbeat += 1


def test_silence_counts_from_the_last_sign_of_life(observation: Observation) -> None:
    assert not observation.live(LEASE - 1)
    observation.heartbeat += 1
    assert not observation.live(LEASE - 1)
    assert observation.live(3)


def test_silence_before_the_first_look_does_not_count(observation: Observation) -> None:
    for _ in range(6):
        observation.clock.now += HEARTBEAT
        observation.leases.run_once()
    assert not observation.sees_death()
    assert not observation.live(LEASE - 1)


def test_an_observer_that_renewed_late_begins_to_count_again(observation: Observation) -> None:
    assert not observation.live(LEASE - 5)
    observation.clock.now += 1.6 * HEARTBEAT
    observation.leases.run_once()
    assert not observation.sees_death()
    assert not observation.live(LEASE - 1)
    assert observation.live(3)


def test_an_observer_whose_renewal_was_answered_late_begins_to_count_again(observation: Observation) -> None:
    assert not observation.live(LEASE - 5)
    observation.gateway.answer_seconds = HEARTBEAT + 1
    observation.leases.run_once()
    observation.gateway.answer_seconds = 0
    assert not observation.live(LEASE - HEARTBEAT - 3)


def test_an_observer_that_looks_after_an_outage_before_it_has_renewed_finds_nobody_dead(
    observation: Observation,
) -> None:
    """Whoever reconnects first would rob all the others, who were cut off as well."""
    assert not observation.live(5)
    observation.gateway.is_away = True
    for _ in range(20):
        observation.clock.now += LEASE / 10
        with pytest.raises(ConnectionError):
            observation.leases.run_once()
    observation.gateway.is_away = False
    assert not observation.sees_death()
    observation.leases.run_once()
    assert not observation.live(LEASE - 1)
    assert observation.live(3)


def test_an_observer_that_was_stopped_finds_nobody_dead_when_it_goes_on(observation: Observation) -> None:
    assert not observation.live(5)
    observation.clock.now += 10 * LEASE
    assert not observation.sees_death()


def test_an_executor_that_is_gone_and_comes_back_is_observed_anew(observation: Observation) -> None:
    assert not observation.live(LEASE - 1)
    assert observation.observer.dead([]) == []
    assert not observation.live(LEASE - 1)


def test_a_lease_holds_from_when_its_renewal_was_sent(observation: Observation) -> None:
    observation.clock.now += HEARTBEAT
    sent = observation.clock.now
    observation.gateway.answer_seconds = 3.0
    observation.leases.run_once()
    assert observation.launch.lease_ends == sent + LEASE


def test_a_renewal_that_failed_does_not_prolong_the_lease(observation: Observation) -> None:
    ends = observation.launch.lease_ends
    observation.gateway.is_away = True
    observation.clock.now += HEARTBEAT
    with pytest.raises(ConnectionError):
        observation.leases.run_once()
    assert observation.launch.lease_ends == ends


def test_a_process_that_was_declared_dead_goes_on_under_another_name(observation: Observation) -> None:
    observation.gateway.is_alive = False
    observation.clock.now += HEARTBEAT
    observation.leases.run_once()
    assert observation.launch.executor_id != "observer"
    assert observation.launch.lease_ends == observation.clock.now + LEASE
