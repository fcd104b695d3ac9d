"""Many servers, some well and some not: which thread asks whom, and what becomes of the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from tests.servers.delivered import Delivered, Result
from tests.servers.fake_server import FakeServer, Reply, Request, answer, be_vllm, vllm_page
from tokenwatt.servers.polling.poller import FIRST_PROOF, LONGEST_PROOF, Poller
from tokenwatt.servers.polling.pollers import Pollers
from tokenwatt.servers.polling.rounds import QUICK_LIMIT_NS
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import ServerFailure, ServerReading

SHARED = "servers"
BUSY_NS = 100_000_000
"""What a busy machine may add."""

Start = Callable[..., Pollers]


@pytest.fixture
def poll() -> Iterator[Start]:
    """Starts pollers of (name, url), and sees to it that stopping them leaves nothing."""
    started: list[Pollers] = []

    def start(deliver: Callable[[Result], None], *servers: tuple[str, str], period_s: float) -> Pollers:
        pollers = Pollers(period_ns=int(period_s * 1e9), deliver=deliver)
        started.append(pollers)
        for server in servers:
            pollers.add(ServerTarget(*server))
        pollers.start()
        return pollers

    yield start
    for pollers in started:
        pollers.stop()
    assert pollers_threads() == []


@pytest.fixture
def other() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        be_vllm(fake)
        yield fake


def pollers_threads() -> list[str]:
    return sorted(t.name for t in threading.enumerate() if t.name == SHARED or t.name.startswith("server-"))


class Moods:
    """A vLLM whose page takes as long as the test says: ``delay_s``, or for ever."""

    def __init__(self, server: FakeServer) -> None:
        be_vllm(server)
        self.delay_s = 0.0
        self.well = threading.Event()
        self.well.set()
        self._server = server
        server.serve("/metrics/", self._page)
        server.serve("/metrics", self._page)

    def _page(self, _: Request) -> Reply:
        time.sleep(self.delay_s)
        while not self.well.wait(0.02) and not self._server.closing.is_set():
            pass
        return answer(vllm_page())


def gaps_ns(results: list[tuple[Result, str]]) -> list[int]:
    instants = [result.t_ns for result, _ in results]
    return [b - a for a, b in pairwise(instants)]


def all_shared(delivered: Delivered, *names: str) -> Callable[[list[Result]], bool]:
    return lambda _: all(delivered.last_by(SHARED, name) for name in names)


def test_servers_that_are_well_are_asked_by_one_thread_once_a_period(server: FakeServer, poll: Start) -> None:
    be_vllm(server)
    delivered = Delivered()
    names = ["a", "b", "c", "d"]
    poll(delivered, *((name, server.url) for name in names), period_s=0.2)
    delivered.wait(lambda _: all(delivered.last_by(SHARED, name, 4) for name in names))
    for name in names:
        last = delivered.of(name)[-4:]
        assert len({result.t_ns // 200_000_000 for result, _ in last}) == 4
        assert sum(gaps_ns(last)) <= 3 * 200_000_000 + BUSY_NS + 200_000_000  # at most one point left out
    assert pollers_threads().count(SHARED) == 1
    assert server.connections == 4
    assert len(server.asked("/metrics/")) - len(delivered.results) <= 4  # no question without a reading, but those under way


def test_more_servers_than_a_round_takes_get_another_thread(server: FakeServer, poll: Start) -> None:
    be_vllm(server)
    delivered = Delivered()
    poll(delivered, *((f"s{i}", server.url) for i in range(5)), period_s=0.1)
    assert pollers_threads().count(SHARED) == 3
    delivered.wait(all_shared(delivered, *(f"s{i}" for i in range(5))))


def test_one_that_hangs_holds_the_others_up_shortly_once_and_comes_back(server: FakeServer, other: FakeServer, poll: Start) -> None:
    moods = Moods(server)
    delivered = Delivered()
    period_ns = 100_000_000
    poll(delivered, ("bad", server.url), ("good", other.url), period_s=0.1)  # asked in this order
    delivered.wait(all_shared(delivered, "bad", "good"))
    moods.well.clear()
    before = len(delivered.of("good"))
    delivered.wait(lambda r: any(isinstance(x, ServerFailure) for x in r))
    during = delivered.of("good")[before:]
    assert len(during) >= 15
    assert {thread for _, thread in during} == {SHARED}
    assert max(gaps_ns(during)) <= period_ns + QUICK_LIMIT_NS + BUSY_NS
    failure, thread = next((x, t) for x, t in delivered.of("bad") if isinstance(x, ServerFailure))
    assert (thread, failure.gone) == ("server-bad", False)
    assert failure.reason.endswith("does not answer within 2 s")
    moods.well.set()
    delivered.wait(lambda _: delivered.last_by(SHARED, "bad"))
    assert all(isinstance(result, ServerReading) for result, _ in delivered.of("good"))


def test_a_slow_server_is_read_every_period_and_asked_once_for_it(server: FakeServer, poll: Start) -> None:
    moods = Moods(server)
    delivered = Delivered()
    poll(delivered, ("slow", server.url), period_s=0.1)
    delivered.wait(all_shared(delivered, "slow"))
    moods.delay_s = 0.06
    readings, requests = len(delivered.results), len(server.asked("/metrics/"))
    delivered.wait(lambda r: len(r) >= readings + 8)
    slow, threads = delivered.results[readings + 1 :], delivered.threads[readings + 1 :]
    assert all(isinstance(result, ServerReading) for result in slow)
    assert set(threads) == {"server-slow"}
    assert max(gaps_ns(delivered.of("slow")[readings + 1 :])) <= 150_000_000 + BUSY_NS
    # The quick one that failed, and one under way.
    assert len(server.asked("/metrics/")) - requests <= len(delivered.results) - readings + 2


def test_a_connection_that_was_closed_is_no_failure(server: FakeServer, poll: Start) -> None:
    be_vllm(server)
    delivered = Delivered()
    poll(delivered, ("chat", server.url), period_s=0.1)
    delivered.wait(all_shared(delivered, "chat"))
    server.hang_up()
    delivered.wait(lambda _: delivered.last_by("server-chat", "chat", 2))
    assert all(isinstance(result, ServerReading) for result in delivered.results)
    assert server.connections == 2


def test_one_that_goes_is_reported_gone_by_its_own_thread_at_once(server: FakeServer, poll: Start) -> None:
    be_vllm(server)
    delivered = Delivered()
    poll(delivered, ("chat", server.url), period_s=0.1)
    delivered.wait(all_shared(delivered, "chat"))
    server.refuse()
    failure = delivered.wait(lambda r: isinstance(r[-1], ServerFailure))[-1]
    assert isinstance(failure, ServerFailure)
    assert failure.gone
    last_good = next(r for r in reversed(delivered.results) if isinstance(r, ServerReading))
    assert failure.t_ns - last_good.t_ns < 0.1e9 + BUSY_NS
    assert delivered.threads[-1] == "server-chat"


def test_stop_is_prompt_whatever_the_servers_do(server: FakeServer, other: FakeServer, poll: Start) -> None:
    moods = Moods(server)
    delivered = Delivered()
    with FakeServer() as gone:
        gone.refuse()
        pollers = poll(delivered, ("stuck", server.url), ("gone", gone.url), ("well", other.url), period_s=0.1)
        delivered.wait(all_shared(delivered, "stuck", "well"))
        moods.well.clear()
        asked = len(server.requests)
        server.wait_for(lambda: len(server.requests) >= asked + 2)  # quickly, and with patience
    stop_promptly(pollers, delivered)


def test_stop_is_prompt_in_the_middle_of_a_round(server: FakeServer, poll: Start) -> None:
    moods = Moods(server)
    delivered = Delivered()
    pollers = poll(delivered, ("stuck", server.url), period_s=0.1)
    delivered.wait(all_shared(delivered, "stuck"))
    moods.well.clear()
    asked = len(server.requests)
    server.wait_for(lambda: len(server.requests) > asked)
    stop_promptly(pollers, delivered)


def stop_promptly(pollers: Pollers, delivered: Delivered) -> None:
    started = time.monotonic()
    pollers.stop()
    assert time.monotonic() - started < 0.5
    assert pollers_threads() == []
    count = len(delivered.results)
    pollers.stop()
    assert len(delivered.results) == count


def test_stop_is_safe_unstarted_and_without_servers(server: FakeServer, poll: Start) -> None:
    pollers = Pollers(period_ns=10**9, deliver=print)
    pollers.add(ServerTarget("chat", server.url))
    pollers.stop()
    pollers.add(ServerTarget("late", server.url))
    poll(print, period_s=1)
    assert pollers_threads() == []


def test_who_comes_back_often_must_be_prompt_for_longer_until_it_stayed(server: FakeServer) -> None:
    poller = Poller(ServerTarget("chat", server.url), period_ns=10**9, deliver=print)
    proofs = [poller._proof]
    for _ in range(3):
        poller.take_back()
        proofs.append(poller._proof)
    assert proofs == [FIRST_PROOF, 4 * FIRST_PROOF, LONGEST_PROOF, LONGEST_PROOF]
    poller._stayed = LONGEST_PROOF
    poller.take_back()
    assert poller._proof == 4 * FIRST_PROOF
