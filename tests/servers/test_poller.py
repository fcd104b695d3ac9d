from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.servers.delivered import Delivered, Result
from tests.servers.fake_server import FakeServer, answer, be_vllm
from tokenwatt.servers.polling.poller import BACKOFF_LIMIT_NS, Poller
from tokenwatt.servers.scrape import Scraper
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import ServerFailure, ServerReading


@pytest.fixture
def poll() -> Iterator[Callable[..., Poller]]:
    """Starts pollers, and sees to it that stopping them leaves nothing."""
    started: list[Poller] = []
    threads = threading.active_count()

    def start(url: str, deliver: Callable[[Result], None], *, period_s: float = 0.05, name: str = "chat") -> Poller:
        poller = Poller(ServerTarget(name, url), period_ns=int(period_s * 1e9), deliver=deliver)
        started.append(poller)
        poller.start()
        return poller

    yield start
    for poller in started:
        poller.stop()
        assert not poller._thread.is_alive()
    assert threading.active_count() <= threads + 2  # the fake server's own


def times(results: list[Result]) -> list[int]:
    return [r.t_ns for r in results]


def test_asks_at_once_and_then_at_the_same_part_of_each_period(server: FakeServer, poll: Callable[..., Poller]) -> None:
    be_vllm(server)
    delivered = Delivered()
    started_ns = time.monotonic_ns()
    poll(server.url, delivered, period_s=0.2)
    first, *rest = times(delivered.wait(lambda r: len(r) >= 6))
    assert first - started_ns < 0.2e9
    # In the middle of a request that begins on the grid; late by as much as a busy machine makes it.
    phases = [(t - rest[0]) % int(0.2e9) for t in rest]
    assert all(p < 0.05e9 or p > 0.15e9 for p in phases), phases
    assert server.connections == 1


def test_own_threads_ask_at_different_points_of_the_first_half_of_the_period(server: FakeServer) -> None:
    phases = sorted(Poller(ServerTarget(f"server-{i}", server.url), period_ns=10**9, deliver=print)._phase_ns for i in range(8))
    assert all(0 <= p < 0.5e9 for p in phases)
    assert len({p // 10**7 for p in phases}) >= 4


def test_stop_is_prompt_while_a_request_hangs_and_delivers_nothing(server: FakeServer, poll: Callable[..., Poller]) -> None:
    for path in ("/metrics", "/metrics/", "/v1/models"):
        server.serve(path, lambda _: [b""] if server.closing.wait(30) else [])
    delivered = Delivered()
    poller = poll(server.url, delivered)
    server.wait_for(lambda: bool(server.requests))
    started = time.monotonic()
    poller.stop()
    assert time.monotonic() - started < 0.5
    assert not poller._thread.is_alive()
    assert delivered.results == []


def test_stop_is_safe_unstarted_and_twice(server: FakeServer, poll: Callable[..., Poller]) -> None:
    be_vllm(server)
    unstarted = Poller(ServerTarget("chat", server.url), period_ns=10**9, deliver=print)
    unstarted.stop()
    poller = poll(server.url, Delivered())
    poller.stop()
    poller.stop()


def test_comes_back_by_itself_and_says_each_change_once(
    server: FakeServer, poll: Callable[..., Poller], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tokenwatt.servers")
    be_vllm(server)
    delivered = Delivered()
    poll(server.url, delivered)
    delivered.wait(lambda r: len(r) >= 3)
    server.refuse()
    delivered.wait(lambda r: sum(isinstance(x, ServerFailure) for x in r) >= 3)
    server.listen()
    results = delivered.wait(lambda r: isinstance(r[-1], ServerReading))
    assert [r.gone for r in results if isinstance(r, ServerFailure)] == [True] * sum(isinstance(r, ServerFailure) for r in results)
    said = [(r.levelname, r.getMessage()) for r in caplog.records]
    up = ("INFO", "chat is up: vllm 0.32.0")
    assert said == [up, ("WARNING", f"chat is down: 127.0.0.1:{server.port} refuses the connection: nobody listens there"), up]


def test_after_failures_it_waits_longer_at_random_but_never_more_than_5_s(server: FakeServer) -> None:
    poller = Poller(ServerTarget("chat", server.url), period_ns=10**9, deliver=print)
    now_ns = time.monotonic_ns()
    longest = []
    for failures in (1, 2, 3, 50):
        poller._failures = failures
        waits = [poller._next_due(now_ns) - now_ns for _ in range(500)]
        assert all(10**9 <= w <= BACKOFF_LIMIT_NS for w in waits)
        assert len(set(waits)) > 400
        longest.append(max(waits))
    assert longest[0] <= 2e9 < longest[1] <= 4e9 < min(longest[2:])


def test_a_receiver_that_fails_does_not_end_the_readings(
    server: FakeServer, poll: Callable[..., Poller], caplog: pytest.LogCaptureFixture
) -> None:
    be_vllm(server)
    delivered = Delivered()

    def deliver(result: Result) -> None:
        delivered(result)
        if len(delivered.results) == 1:
            raise RuntimeError("full")

    poll(server.url, deliver)
    delivered.wait(lambda r: len(r) >= 3)
    assert "a reading was lost" in caplog.text


def test_a_mistake_of_ours_is_a_failure_and_not_the_end(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    class Mistaken(Scraper):
        def scrape(self) -> ServerReading | ServerFailure:
            raise RuntimeError("mistake")

    delivered = Delivered()
    target = ServerTarget("chat", server.url)
    poller = Poller(target, period_ns=10**7, deliver=delivered)
    poller._scraper = Mistaken(target)
    poller.start()
    try:
        results = delivered.wait(lambda r: len(r) >= 2)
    finally:
        poller.stop()
    assert {r.reason for r in results if isinstance(r, ServerFailure)} == {"a mistake of tokenwatt, see its log"}
    assert "RuntimeError: mistake" in caplog.text


def test_a_slow_server_holds_no_other_up(server: FakeServer, poll: Callable[..., Poller]) -> None:
    be_vllm(server)
    slow, quick = Delivered(), Delivered()
    with FakeServer() as hangs:
        hangs.serve("/v1/models", lambda _: [b""] if hangs.closing.wait(30) else [])
        stuck = poll(hangs.url, slow, name="stuck")
        hangs.wait_for(lambda: bool(hangs.requests))
        poll(server.url, quick)
        quick.wait(lambda r: len(r) >= 4)
        assert slow.results == []
        stuck.stop()


def test_garbage_is_a_failure_each_time_and_nothing_else(server: FakeServer, poll: Callable[..., Poller]) -> None:
    server.serve("/metrics", answer(b"\x00\xff" * 100 + b"\n"))
    delivered = Delivered()
    poll(server.url, delivered)
    assert all(isinstance(r, ServerFailure) and not r.gone for r in delivered.wait(lambda r: len(r) >= 3))
