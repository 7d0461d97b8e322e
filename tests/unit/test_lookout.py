"""When to look for what was committed to a file, of which nobody says who it was."""

from __future__ import annotations

import pytest

from dbos_orm._drivers.writer_turn import WriterTurn
from dbos_orm._services.watcher import Lookout


def test_a_commit_of_somebody_else_is_looked_at_at_once() -> None:
    lookout = Lookout(WriterTurn(), 1)
    assert not lookout.see(1, 10.0)
    assert not lookout.is_due(10.0)
    assert lookout.see(2, 10.1)
    assert lookout.is_due(10.1)
    assert not lookout.is_due(10.2)


def test_many_commits_are_one_look_in_twenty_milliseconds() -> None:
    lookout = Lookout(WriterTurn(), 0)
    looks = 0
    for millisecond in range(1000):
        lookout.see(millisecond + 1, millisecond / 1000)
        looks += lookout.is_due(millisecond / 1000)
    assert looks == pytest.approx(52, abs=2)


def test_a_look_that_led_to_work_is_soon_followed_by_the_next() -> None:
    writer = WriterTurn()
    lookout = Lookout(writer, 0)
    looks = 0
    for version, now in enumerate(range(0, 1000, 5), 1):
        lookout.see(2 * version, now / 1000)
        if lookout.is_due(now / 1000):
            looks += 1
            writer.request()
            writer.release()
            # What was found, and done.
            lookout.see(2 * version + 1, now / 1000 + 0.001)
    assert looks > 150


def test_what_may_be_an_own_commit_is_looked_at_later_and_rarely() -> None:
    writer, looks = WriterTurn(), []
    lookout = Lookout(writer, 0)
    for millisecond in range(1000):
        writer.request()
        writer.release()
        lookout.see(millisecond + 1, millisecond / 1000)
        if lookout.is_due(millisecond / 1000):
            looks.append(millisecond)
    assert looks[0] == 10
    assert len(looks) <= 13
    assert looks[-1] - looks[-2] == pytest.approx(100, abs=2)


def test_a_commit_that_is_visible_after_its_turn_began_is_own() -> None:
    writer = WriterTurn()
    writer.request()
    lookout = Lookout(writer, 0)
    writer.release()
    lookout.see(1, 5.0)
    assert not lookout.is_due(5.0)
    assert lookout.is_due(5.2)


def test_a_commit_of_somebody_else_does_not_wait_for_the_look_at_an_own_one() -> None:
    writer = WriterTurn()
    lookout = Lookout(writer, 0)
    writer.request()
    writer.release()
    lookout.see(1, 5.0)
    lookout.see(2, 5.01)
    assert lookout.is_due(5.01)
    assert not lookout.is_due(6.0)


def test_those_who_wait_for_a_turn_are_counted_when_it_comes() -> None:
    writer = WriterTurn()
    writer.request()
    writer.request()
    assert writer.taken() == (1, True)
    writer.release()
    assert writer.taken() == (2, True)
    writer.release()
    assert writer.taken() == (2, False)
