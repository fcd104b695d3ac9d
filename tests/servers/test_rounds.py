from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tokenwatt.servers.polling.rounds import QUICK_LIMIT_NS, Guest, Round, seats

PERIOD_NS = 50_000_000


class Visitor:
    """A guest that writes down when it was asked, and what its round did with it."""

    def __init__(self, answers: Callable[[int], bool] = lambda _: True) -> None:
        self.asked_ns: list[int] = []
        self.threads: set[str] = set()
        self.returned = 0
        self._answers = answers
        self._changed = threading.Condition()

    def ask_quickly(self) -> bool:
        with self._changed:
            self.asked_ns.append(time.monotonic_ns())
            self.threads.add(threading.current_thread().name)
            self._changed.notify_all()
        return self._answers(len(self.asked_ns))

    def take_back(self) -> None:
        with self._changed:
            self.returned += 1
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10)


@pytest.fixture
def host() -> Iterator[Callable[..., Round]]:
    """Starts rounds with guests, and ends them."""
    rounds: list[Round] = []

    def start(*guests: Guest) -> Round:
        rounds.append(Round(PERIOD_NS))
        for guest in guests:
            rounds[-1].join(guest)
        rounds[-1].start()
        return rounds[-1]

    yield start
    for each in rounds:
        each.stop(5)
    assert "servers" not in {thread.name for thread in threading.enumerate()}


def periods(asked_ns: list[int]) -> list[int]:
    return [t // PERIOD_NS for t in asked_ns]


def test_guests_are_asked_in_turn_at_each_multiple_of_the_period(host: Callable[..., Round]) -> None:
    one, other = Visitor(), Visitor()
    host(one, other)
    other.wait(lambda: len(other.asked_ns) >= 8)
    for guest in (one, other):
        assert guest.threads == {"servers"}
        assert len(set(periods(guest.asked_ns))) == len(guest.asked_ns)
    assert all(a < b for a, b in zip(one.asked_ns, other.asked_ns, strict=False))


def test_a_round_that_stalls_leaves_points_out_and_makes_up_for_none(host: Callable[..., Round]) -> None:
    def answers(n: int) -> bool:
        if n == 2:
            time.sleep(3.5 * PERIOD_NS / 1e9)
        return True

    stalled = Visitor(answers)
    host(stalled)
    stalled.wait(lambda: len(stalled.asked_ns) >= 7)
    asked = periods(stalled.asked_ns)
    assert len(set(asked)) == len(asked)
    assert asked[2] - asked[1] >= 4


def test_who_does_not_answer_leaves_and_the_others_stay(host: Callable[..., Round]) -> None:
    leaves, stays = Visitor(lambda n: n < 3), Visitor()
    host(leaves, stays)
    stays.wait(lambda: len(stays.asked_ns) >= 6)
    assert (len(leaves.asked_ns), leaves.returned, stays.returned) == (3, 1, 0)


def test_who_joins_again_while_it_is_let_go_is_not_lost(host: Callable[..., Round]) -> None:
    class Returner(Visitor):
        def take_back(self) -> None:
            super().take_back()
            round_.join(self)

    guest = Returner(lambda n: n % 2 == 0)
    round_ = host()
    round_.join(guest)
    guest.wait(lambda: guest.returned >= 3)
    assert len(set(periods(guest.asked_ns))) == len(guest.asked_ns)


def test_ends_after_the_guest_being_asked(host: Callable[..., Round]) -> None:
    entered = threading.Event()

    def answers(_: int) -> bool:
        entered.set()
        time.sleep(QUICK_LIMIT_NS / 1e9)
        return False

    guests = [Visitor(answers) for _ in range(8)]
    round_ = host(*guests)
    assert entered.wait(10)
    started = time.monotonic()
    round_.stop(5)
    assert time.monotonic() - started < 0.2
    assert sum(len(guest.asked_ns) for guest in guests) <= 2
    round_.stop(5)


def test_stop_is_safe_unstarted() -> None:
    Round(PERIOD_NS).stop(5)


@pytest.mark.parametrize(("period_ns", "taken"), [(10**9, 20), (200_000_000, 4), (10**6, 1)])
def test_a_round_where_all_hang_ends_within_the_period(period_ns: int, taken: int) -> None:
    assert seats(period_ns) == taken
