"""Identifiers: UUIDv7 that only grow, from any number of threads."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from dbos_orm._identifiers import IdentifierSource, executor_id, random_token


def test_workflow_ids_are_version_seven_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(IdentifierSource().workflow_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_workflow_ids_only_grow() -> None:
    source = IdentifierSource()
    made = [source.workflow_id() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_workflow_ids_only_grow_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    source = IdentifierSource()
    first = source.workflow_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert [source.workflow_id() for _ in range(3)] > [first] * 3


def test_workflow_ids_of_threads_differ() -> None:
    source = IdentifierSource()
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: [source.workflow_id() for _ in range(500)], range(8)))
    assert len({each for some in made for each in some}) == 4_000
    assert all(some == sorted(some) for some in made)


def test_write_ids_fit_a_big_integer() -> None:
    source = IdentifierSource()
    made = {source.write_id() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(0 <= each < 2**63 for each in made)


def test_tokens_are_32_digits_and_no_two_are_equal() -> None:
    source = IdentifierSource()
    made = {source.token() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in made)


def test_tokens_and_executors_are_never_used_twice() -> None:
    assert len({random_token() for _ in range(100)} | {executor_id() for _ in range(100)}) == 200
