from __future__ import annotations

import time
from collections.abc import Iterator

from tests.servers.conftest import Make, bad, good
from tests.servers.fake_server import FakeServer, Reply, Request, answer, be_vllm, vllm_page
from tokenwatt.servers.scrape import Scraper

LIMIT_S = 0.05


def read_once(server: FakeServer, scraper: Make) -> Scraper:
    be_vllm(server)
    made = scraper(server.url)
    good(made.scrape())
    return made


def test_reads_over_the_connection_that_is_kept(server: FakeServer, scraper: Make) -> None:
    made = read_once(server, scraper)
    full = good(made.scrape())
    quick = made.scrape_quickly(1)
    assert quick is not None
    assert (quick.counters, quick.version, quick.engine, quick.listener) == (full.counters, "0.32.0", "vllm", full.listener)
    assert server.connections == 1


def test_makes_no_connection(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    made = scraper(server.url)
    assert made.scrape_quickly(1) is None
    assert server.connections == 0
    good(made.scrape())
    server.hang_up()
    assert made.scrape_quickly(1) is None
    assert server.connections == 1
    good(made.scrape())
    assert server.connections == 2


def test_all_of_it_is_within_the_limit(server: FakeServer, scraper: Make) -> None:
    made = read_once(server, scraper)

    def dribble(_: Request) -> Iterator[bytes]:
        for byte in answer(vllm_page()):
            if server.closing.wait(0.02):
                break
            yield bytes([byte])

    server.serve("/metrics/", dribble)
    started = time.monotonic()
    assert made.scrape_quickly(LIMIT_S) is None
    assert LIMIT_S * 0.9 < time.monotonic() - started < LIMIT_S + 0.1


def test_the_second_page_has_only_what_the_first_left_of_the_limit(server: FakeServer, scraper: Make) -> None:
    made = read_once(server, scraper)

    def late(body: bytes) -> Reply:
        server.closing.wait(0.04)
        return answer(body)

    server.serve("/metrics/", lambda _: late(b""))  # the filter finds nothing any more
    server.serve("/metrics", lambda _: late(vllm_page()))
    started = time.monotonic()
    assert made.scrape_quickly(LIMIT_S) is None
    assert time.monotonic() - started < LIMIT_S + 0.03
    assert len(server.asked("/metrics")) <= 1
    good(made.scrape())


def test_leaves_it_to_a_full_scrape_to_say_that_the_server_is_gone(server: FakeServer, scraper: Make) -> None:
    made = read_once(server, scraper)
    server.refuse()
    assert made.scrape_quickly(1) is None
    assert bad(made.scrape()).gone


def test_a_version_that_takes_long_is_not_given_up_on(server: FakeServer, scraper: Make) -> None:
    made = read_once(server, scraper)
    be_vllm(server, vllm_page(start=1_790_000_100.5))  # started anew

    def version(_: Request) -> Reply:
        server.closing.wait(0.1)
        return answer(b'{"version":"0.33.0"}', content_type="application/json")

    server.serve("/version", version)
    assert made.scrape_quickly(LIMIT_S) is None
    assert good(made.scrape()).version == "0.33.0"


def test_an_answer_that_is_no_page_is_no_reading(server: FakeServer, scraper: Make) -> None:
    made = read_once(server, scraper)
    server.serve("/metrics/", answer(b"busy", status="503 Service Unavailable"))
    server.serve("/metrics", answer(b"busy", status="503 Service Unavailable"))
    assert made.scrape_quickly(1) is None
    assert bad(made.scrape()).reason.startswith("HTTP 503")
