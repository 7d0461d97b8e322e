"""Settings: their defaults, their units, and that they are frozen."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta

import pytest

from dbos_orm import Config
from dbos_orm.config import require_count, require_text, seconds
from dbos_orm.errors import ConfigurationError


@pytest.mark.parametrize(
    ("duration", "expected"), [(30, 30.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (0, 0.0), (-1, -1.0)]
)
def test_a_duration_is_a_timedelta_or_seconds(duration: timedelta | float, expected: float) -> None:
    assert seconds(duration) == expected


@pytest.mark.parametrize("duration", ["30", None, True, math.nan, math.inf, 1e300, timedelta.max, timedelta.min])
def test_what_is_no_duration_is_refused_by_name(duration: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        seconds(duration, field="lease")
    assert caught.value.field == "lease"


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_what_is_no_count_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="a whole number from 1"):
        require_count("pool_size", value)


@pytest.mark.parametrize("value", ["", " ", "a\x00b", 7, None, b"a"])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="expected a text"):
        require_text("name", value)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().lease = 1  # type: ignore[misc]


def test_settings_show_what_differs_from_the_defaults() -> None:
    assert repr(Config()) == "Config()"
    assert repr(Config(tick=5, worker_threads=2)) == "Config(tick=5, worker_threads=2)"


def test_every_setting_says_what_it_is() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    assert defaults["lease"] == 30
    assert defaults["heartbeat"] == 10
    assert defaults["lock_timeout"] == 0.1
    assert defaults["worker_threads"] == 64
    assert dataclasses.replace(Config(), tick=2) == Config(tick=2)
