"""Notices to other processes: how many statements they take, and who sends them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from dbos_orm._drivers import telling as tellings
from dbos_orm._drivers.gateway import Gateway
from dbos_orm._drivers.hints import Hints
from dbos_orm._drivers.notices import Notice, Waiting, decode_notice, encode_notice
from dbos_orm._drivers.telling import Telling
from tests.processes import PATIENCE, eventually


class FakeDialect:
    schemas = None


class FakeGateway:
    """Keeps what would be sent; a service loop starts nothing until it is told to."""

    dialect = FakeDialect()

    def __init__(self, *, has_service_loop: bool = False) -> None:
        self.has_service_loop = has_service_loop
        self.begun: list[Callable[[], object]] = []
        self.paused: list[float] = []
        self.clock = 100.0
        self.sent: list[set[Waiting]] = []
        self.sending: Callable[[], None] = lambda: None

    def start(self, call: Callable[[], object]) -> None:
        self.begun.append(call)

    def pause(self, duration: float) -> None:
        self.paused.append(duration)
        self.clock += duration

    def read_once(self, verb: Any) -> None:
        self.sending()
        notice = decode_notice(verb.keywords["text"])
        assert notice is not None
        assert notice.waiting is not None
        self.sent.append(set(notice.waiting))


def telling_over(gateway: FakeGateway) -> Telling:
    return Telling(cast("Gateway", gateway), "shop", clock=lambda: gateway.clock)


A, B, C = ("mail", "a"), ("mail", "b"), ("print", "c")


def test_what_follows_the_first_notice_closely_is_sent_in_one() -> None:
    gateway, woken = FakeGateway(), []
    telling = telling_over(gateway)
    telling.later = lambda: woken.append(gateway.clock)
    for pair in (A, B, C, B):
        telling.tell(*pair)
    assert gateway.sent == [{A}]
    assert len(woken) == 1
    assert telling.flush() == pytest.approx(tellings.WINDOW_SECONDS)
    gateway.clock += tellings.WINDOW_SECONDS
    telling.flush()
    assert gateway.sent == [{A}, {B, C}]
    gateway.clock += tellings.WINDOW_SECONDS
    assert telling.flush() is None
    telling.tell(*A)
    assert gateway.sent == [{A}, {B, C}, {A}]


def test_what_is_expected_is_told_when_its_time_has_come() -> None:
    gateway, woken = FakeGateway(), []
    telling = telling_over(gateway)
    telling.later = lambda: woken.append(gateway.clock)
    telling.tell(*A, after=0.02)
    assert (gateway.sent, len(woken)) == ([], 1)
    telling.tell(*B)
    assert telling.flush() == pytest.approx(0.01)
    gateway.clock += 0.02
    telling.flush()
    assert gateway.sent == [{B}, {A}]


def test_a_service_loop_sends_everything_and_nobody_waits() -> None:
    gateway = FakeGateway(has_service_loop=True)
    telling = telling_over(gateway)
    for pair in (A, B, C):
        telling.tell(*pair)
    assert (len(gateway.begun), gateway.sent) == (1, [])
    gateway.begun.pop()()
    assert gateway.sent == [{A, B, C}]
    telling.tell(*A)
    assert len(gateway.begun) == 1


def test_threads_that_tell_while_a_statement_is_under_way_share_the_next() -> None:
    gateway = FakeGateway()
    telling = telling_over(gateway)
    is_held, release = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        assert release.wait(PATIENCE)

    gateway.sending = hold
    threads = [threading.Thread(target=telling.tell, args=("mail", str(number))) for number in range(20)]
    threads[0].start()
    assert is_held.wait(PATIENCE)
    for thread in threads[1:]:
        thread.start()
    eventually(lambda: len(telling._due) == 19)
    release.set()
    for thread in threads:
        thread.join()
    assert [len(batch) for batch in gateway.sent] == [1, 19]


def test_an_error_of_the_database_is_nobodys() -> None:
    gateway = FakeGateway()

    def fail() -> None:
        raise ConnectionError("away")

    gateway.sending = fail
    telling_over(gateway).tell(*A)
    gateway.sending = lambda: None
    telling_over(gateway).tell(*B)
    assert gateway.sent == [{B}]


def test_what_was_put_off_is_sent_when_the_launch_ends() -> None:
    gateway = FakeGateway()
    telling = telling_over(gateway)
    telling.later = lambda: None
    telling.tell(*A)
    telling.tell(*B)
    telling.tell(*C, after=5)
    telling.flush_all()
    telling.flush_all()
    assert gateway.sent == [{A}, {B, C}]


def test_a_notice_that_would_be_too_long_says_only_that_something_waits() -> None:
    pairs = {("queue", f"workflow é {number}") for number in range(200)}
    text = encode_notice("me", waiting=pairs)
    assert decode_notice(text) == Notice("me", frozenset(pairs))
    text = encode_notice("me", waiting={("queue", f"a long name {'é' * 50} {number}") for number in range(200)})
    assert decode_notice(text) == Notice("me", frozenset())


@pytest.mark.parametrize("text", ["", "7", "[]", "{}", '{"s": "me", "q": 3}', '{"s": "me", "q": ["a"]}', "\x00"])
def test_what_is_no_notice_is_not_taken_for_one(text: str) -> None:
    assert decode_notice(text) is None


def test_a_kind_of_notice_that_is_not_known_yet_tells_of_no_work() -> None:
    notice = decode_notice('{"s": "newer", "ends": ["w1"]}')
    assert notice == Notice("newer")


def test_others_are_told_of_what_this_process_does_not_look_for() -> None:
    gateway = FakeGateway()
    hints = Hints(telling_over(gateway))
    hints.dispatcher = lambda queue, name, is_expected: queue == "mail"
    hints.announce(*A)
    assert gateway.sent == []
    hints.announce(*C)
    assert gateway.sent == [{C}]


def test_what_was_heard_from_others_is_not_told_to_them() -> None:
    gateway = FakeGateway()
    hints = Hints(telling_over(gateway))
    looked: list[Waiting] = []

    def dispatch(queue: str, name: str, is_expected: bool) -> bool:
        looked.append((queue, name))
        return True

    hints.dispatcher = dispatch
    hints.heard(Notice("other", frozenset([A])))
    assert looked == [A]
    hints.tell_others(*A)
    assert gateway.sent == []
    hints.tell_others(*B)
    hints.heard(Notice("other", frozenset([C])))
    hints.tell_others(*C, is_new=True)
    assert gateway.sent == [{B}, {C}]
    hints.announce(*A)  # one more, of which nobody has heard
    hints.tell_others(*A)
    assert gateway.sent == [{B}, {C}, {A}]


def test_without_names_everything_is_looked_at() -> None:
    hints = Hints()
    looked: list[str] = []
    hints.look_everywhere = lambda: looked.append("everywhere")
    hints.heard(Notice("other", frozenset()))
    hints.heard(Notice("other", frozenset([A])))  # nobody looks into single queues
    hints.heard(Notice("other"))
    assert looked == ["everywhere"] * 2
