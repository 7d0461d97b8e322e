"""Which errors are worth another attempt, and after what pause."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbos_orm import Retry


def test_the_pauses_grow_up_to_the_longest() -> None:
    retry = Retry(backoff=1, backoff_rate=2, max_backoff=timedelta(seconds=5))
    assert [retry.pause_after(attempt, 0) for attempt in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_jitter_takes_off_a_fifth_at_most(attempt: int, chance: float) -> None:
    retry = Retry(backoff=0.5, backoff_rate=10, max_backoff=60)
    longest = retry.pause_after(attempt, 0)
    assert 0.8 * longest <= retry.pause_after(attempt, chance) <= longest <= 60


@pytest.mark.parametrize(
    ("retry", "error", "expected"),
    [
        (Retry(), ValueError(), True),
        (Retry(retry_if=(OSError,)), ValueError(), False),
        (Retry(retry_if=(OSError,)), TimeoutError(), True),
        (Retry(retry_if=()), ValueError(), False),
        (Retry(retry_if=lambda error: "again" in str(error)), ValueError("again"), True),
        (Retry(retry_if=lambda error: "again" in str(error)), ValueError("no"), False),
    ],
)
def test_retry_if_is_types_or_a_function(retry: Retry, error: Exception, expected: bool) -> None:
    retry.validate()
    assert retry.applies_to(error) is expected
