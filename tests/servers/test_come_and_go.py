"""Servers that are added and removed while others are asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.servers.delivered import Delivered, Result
from tests.servers.fake_server import FakeServer, Reply, Request, answer, be_vllm
from tests.servers.test_pollers import SHARED, pollers_threads
from tokenwatt.servers.polling.pollers import Pollers
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import ServerReading

PERIOD_NS = 100_000_000


@pytest.fixture
def delivered() -> Delivered:
    return Delivered()


@pytest.fixture
def pollers(delivered: Delivered) -> Iterator[Pollers]:
    made = Pollers(period_ns=PERIOD_NS, deliver=delivered)
    made.start()
    yield made
    made.stop()
    assert pollers_threads() == []


def count(delivered: Delivered, name: str) -> int:
    return len(delivered.of(name))


def wait_until_gone(thread: str) -> None:
    end_s = time.monotonic() + 10
    for each in threading.enumerate():
        if each.name == thread:
            each.join(end_s - time.monotonic())
            assert not each.is_alive()


def test_one_that_is_added_is_asked_at_once(server: FakeServer, pollers: Pollers, delivered: Delivered) -> None:
    be_vllm(server)
    started_ns = time.monotonic_ns()
    pollers.add(ServerTarget("late", server.url))
    (first, *_) = delivered.wait(lambda r: len(r) >= 1)
    assert isinstance(first, ServerReading)
    assert first.t_ns - started_ns < 2e9
    delivered.wait(lambda _: delivered.last_by(SHARED, "late"))


def test_what_is_added_before_the_start_waits_for_it(server: FakeServer, delivered: Delivered) -> None:
    be_vllm(server)
    made = Pollers(period_ns=PERIOD_NS, deliver=delivered)
    made.add(ServerTarget("chat", server.url))
    assert server.requests == []
    made.start()
    delivered.wait(lambda r: len(r) >= 1)
    made.stop()


@pytest.mark.parametrize("shared", [True, False])
def test_of_one_that_is_removed_nothing_comes_any_more(shared: bool, server: FakeServer, pollers: Pollers, delivered: Delivered) -> None:
    be_vllm(server)
    for name in ("stays", "goes"):
        pollers.add(ServerTarget(name, server.url))
    delivered.wait(lambda _: delivered.last_by(SHARED, "goes") if shared else count(delivered, "goes") >= 1)
    pollers.remove("goes")
    before = count(delivered, "goes")
    wait_until_gone("server-goes")
    stayed = count(delivered, "stays")
    delivered.wait(lambda _: count(delivered, "stays") >= stayed + 4)
    assert count(delivered, "goes") == before
    pollers.remove("goes")
    pollers.remove("never was")


def test_to_remove_one_waits_for_no_server(server: FakeServer, pollers: Pollers, delivered: Delivered) -> None:
    def hang(_: Request) -> Reply:
        server.closing.wait(30)
        return b""

    server.serve("/v1/models", hang)
    pollers.add(ServerTarget("stuck", server.url))
    server.wait_for(lambda: bool(server.requests))
    started = time.monotonic()
    pollers.remove("stuck")
    assert time.monotonic() - started < 0.1
    wait_until_gone("server-stuck")
    assert delivered.results == []


def test_one_that_is_in_the_middle_of_a_round_is_let_go(server: FakeServer, pollers: Pollers, delivered: Delivered) -> None:
    be_vllm(server)
    pollers.add(ServerTarget("slow", server.url))
    pollers.add(ServerTarget("well", server.url))
    delivered.wait(lambda _: delivered.last_by(SHARED, "slow") and delivered.last_by(SHARED, "well"))
    entered = threading.Event()

    def late(_: Request) -> Reply:
        entered.set()
        time.sleep(0.04)
        return answer(b"")

    server.serve("/metrics/", late)
    assert entered.wait(10)
    pollers.remove("slow")
    be_vllm(server)
    wait_until_gone("server-slow")
    before = count(delivered, "well")
    delivered.wait(lambda _: count(delivered, "well") >= before + 3)


def test_a_name_may_come_back(server: FakeServer, pollers: Pollers, delivered: Delivered) -> None:
    be_vllm(server)
    for _ in range(3):
        pollers.add(ServerTarget("chat", server.url))
        before = count(delivered, "chat")
        delivered.wait(lambda _, n=before: count(delivered, "chat") > n)  # type: ignore[misc]
        pollers.remove("chat")


def test_two_of_one_name_are_an_error(server: FakeServer, pollers: Pollers) -> None:
    pollers.add(ServerTarget("chat", server.url))
    with pytest.raises(ValueError, match="two servers of the name chat"):
        pollers.add(ServerTarget("chat", server.url))
    with pytest.raises(ValueError, match="is no http or https url"):
        pollers.add(ServerTarget("other", "ftp://x"))


def test_a_receiver_may_remove_the_one_it_hears_of(server: FakeServer) -> None:
    be_vllm(server)
    heard: list[Result] = []

    def once(result: Result) -> None:
        heard.append(result)
        made.remove(result.server)

    made = Pollers(period_ns=PERIOD_NS, deliver=once)
    made.start()
    made.add(ServerTarget("chat", server.url))
    server.wait_for(lambda: bool(server.asked("/version")))
    wait_until_gone("server-chat")
    made.stop()
    assert len(heard) == 1


def test_rounds_are_made_as_needed_and_seats_used_again(server: FakeServer, pollers: Pollers, delivered: Delivered) -> None:
    be_vllm(server)
    names = [f"s{i}" for i in range(5)]
    for name in names:
        pollers.add(ServerTarget(name, server.url))
    assert pollers_threads().count(SHARED) == 3  # two seats each
    for name in names:
        pollers.remove(name)
        pollers.add(ServerTarget(f"{name}-again", server.url))
    assert pollers_threads().count(SHARED) == 3
    delivered.wait(lambda _: all(delivered.last_by(SHARED, f"{name}-again") for name in names))


def test_two_hundred_servers_are_each_asked_every_period(server: FakeServer, delivered: Delivered) -> None:
    be_vllm(server)
    names = [f"s{i}" for i in range(200)]
    made = Pollers(period_ns=2 * 10**9, deliver=delivered)
    made.start()
    for name in names:
        made.add(ServerTarget(name, server.url, engine="vllm"))
    delivered.wait(lambda r: len(r) >= 2 * len(names))
    made.stop()
    assert {result.server for result in delivered.results} == set(names)
    assert {type(result) for result in delivered.results} == {ServerReading}
    assert pollers_threads() == []
