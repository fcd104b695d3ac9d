"""Servers that hang, trickle, flood or redirect harm nobody else."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest

from tests.servers.conftest import Make, bad, good
from tests.servers.delivered import Delivered
from tests.servers.fake_server import TEXT, FakeServer, Reply, Request, answer, be_vllm, vllm_page
from tests.servers.test_pollers import SHARED
from tokenwatt.servers.polling.pollers import Pollers
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import ServerFailure, ServerReading

HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\n"
MIB = 2**20


class Flood:
    """An answer without an end. ``sent`` is what the server could get rid of."""

    def __init__(self, head: str, piece: bytes) -> None:
        self.sent = 0
        self._head = head.encode()
        self._piece = piece

    def __call__(self, _: Request) -> Iterator[bytes]:
        yield self._head
        while self.sent < 100 * MIB:
            yield self._piece
            self.sent += len(self._piece)


LINES = b"a_metric_that_nobody_wants 1\n" * 1000
CHUNK = b"%x\r\n%s\r\n" % (len(LINES), LINES)


def test_ten_gigabytes_are_refused_by_their_length(server: FakeServer, scraper: Make) -> None:
    flood = Flood(f"{HEAD}Content-Length: {10 * 10**9}\r\n\r\n", LINES)
    server.serve("/metrics", flood)
    started = time.monotonic()
    failure = bad(scraper(server.url, engine="sglang").scrape())
    assert "answers with more than 8 MiB" in failure.reason
    assert time.monotonic() - started < 1
    assert flood.sent < 8 * MIB  # not even what is allowed was taken


@pytest.mark.parametrize(
    "flood",
    [
        lambda: Flood(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", CHUNK),
        lambda: Flood(f"{HEAD}Connection: close\r\n\r\n", LINES),
        lambda: Flood(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: 1\r\n" * 100),
        lambda: Flood("HTTP/1.1 200 OK\r\n", b"X-Header: 1\r\n" * 100),
    ],
    ids=["chunks", "until it closes", "trailers", "headers"],
)
def test_an_answer_without_an_end_is_left_after_its_bound(flood: Callable[[], Flood], server: FakeServer, scraper: Make) -> None:
    endless = flood()
    server.serve("/metrics", endless)
    chat = scraper(server.url, engine="sglang")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failure = bad(chat.scrape())
    assert not failure.gone
    assert "answer" in failure.reason
    assert endless.sent < 40 * MIB  # the bound, and what sockets hold
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024
    be_vllm(server)
    bad(chat.scrape())  # and it is read again: it is no sglang


@pytest.mark.parametrize("path", ["/v1/models", "/info", "/metrics/", "/version"])
def test_a_flood_in_answer_to_any_question_is_bounded(path: str, server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    if path == "/info":
        server.paths.pop("/v1/models")
    server.serve(path, Flood(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", CHUNK))
    started = time.monotonic()
    assert isinstance(scraper(server.url).scrape(), ServerFailure if path != "/version" else ServerReading)
    assert time.monotonic() - started < 3


def test_redirects_are_not_followed(server: FakeServer, scraper: Make) -> None:
    with FakeServer() as elsewhere:
        be_vllm(elsewhere)
        for path in ("/v1/models", "/metrics", "/metrics/", "/info", "/version"):
            server.serve(path, answer(b"", status="302 Found", headers=f"Location: {elsewhere.url}{path}\r\n"))
        assert "a redirect, and they are not followed" in bad(scraper(server.url).scrape()).reason
        assert elsewhere.requests == []


def hang(server: FakeServer) -> Reply:
    server.closing.wait(30)
    return b""


def trickle(server: FakeServer) -> Iterable[bytes]:
    for byte in answer(vllm_page()):
        if server.closing.wait(0.05):
            break
        yield bytes([byte])


@pytest.mark.parametrize(
    "mood",
    [
        hang,
        trickle,
        lambda _: Flood(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", CHUNK)(Request("", "", {})),
        lambda _: answer(b"", status="302 Found", headers="Location: /elsewhere\r\n"),
        lambda _: answer(b"# TYPE sglang:prompt_tokens_total counter\nsglang:prompt_tokens_total 5\n"),
    ],
    ids=["hangs", "trickles", "floods", "redirects", "changes"],
)
def test_a_bad_server_does_not_hold_a_good_one_up(mood: Callable[[FakeServer], Reply], server: FakeServer) -> None:
    be_vllm(server)
    delivered = Delivered()
    with FakeServer() as other:
        be_vllm(other)
        pollers = Pollers(period_ns=100_000_000, deliver=delivered)
        pollers.add(ServerTarget("bad", server.url))
        pollers.add(ServerTarget("good", other.url))
        pollers.start()
        try:
            delivered.wait(lambda _: delivered.last_by(SHARED, "bad") and delivered.last_by(SHARED, "good"))
            for path in ("/metrics", "/metrics/"):
                server.serve(path, lambda _: mood(server))
            before = len(delivered.of("good"))
            delivered.wait(lambda _: len(delivered.of("good")) >= before + 10)
        finally:
            pollers.stop()
    results = delivered.of("good")[before:]
    assert {(type(result), thread) for result, thread in results} == {(ServerReading, SHARED)}
    # Each is asked within the period, and the bad one may take 50 ms of it, once.
    assert max(b.t_ns - a.t_ns for (a, _), (b, _) in pairwise(results)) < 0.5e9


def test_after_a_flood_the_same_server_is_read_again(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    chat = scraper(server.url)
    good(chat.scrape())
    server.serve("/metrics/", Flood(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", CHUNK))
    bad(chat.scrape())
    be_vllm(server)
    assert good(chat.scrape()).engine == "vllm"
