"""Turns at writing: one at a time, first come first served, and who gives up is passed over."""

from __future__ import annotations

import threading

from dbos_orm._drivers.writer_turn import WriterTurn


def test_a_free_turn_is_taken_at_once() -> None:
    turn = WriterTurn()
    assert turn.request().done()
    turn.release()
    assert turn.request().done()


def test_turns_are_given_in_the_order_of_the_requests() -> None:
    turn = WriterTurn()
    requests = [turn.request() for _ in range(4)]
    for number in range(4):
        assert [request.done() for request in requests] == [each <= number for each in range(4)]
        turn.release()
    assert turn.request().done()


def test_who_gives_up_is_passed_over() -> None:
    turn = WriterTurn()
    _, second, third = (turn.request() for _ in range(3))
    assert second.cancel()
    turn.release()
    assert third.done()
    turn.release()
    assert turn.request().done()


def test_who_has_the_turn_cannot_give_it_up() -> None:
    assert not WriterTurn().request().cancel()


def test_two_threads_never_have_the_turn_together() -> None:
    turn, busy, most = WriterTurn(), [0], [0]

    def work() -> None:
        for _ in range(200):
            turn.request().result(30)
            busy[0] += 1
            most[0] = max(most[0], busy[0])
            busy[0] -= 1
            turn.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]
