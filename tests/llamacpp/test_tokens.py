"""What is read of a real llama-server is what its own answers add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.llamacpp.server import LlamaServer, Tokens, timings_of
from tests.vllm.ledger import Ledger, followed

pytestmark = pytest.mark.llamacpp

LONG = " ".join(f"joule {n} buys {n * 7 % 101} of them" for n in range(40))


@pytest.fixture
def ledger(server: LlamaServer) -> Iterator[Ledger]:
    """Books what a poller reads, from before the test's first request on."""
    with followed(server.url) as book:
        yield book


def test_streaming_and_concurrent_requests(server: LlamaServer, ledger: Ledger) -> None:
    counted = server.complete("one request alone", max_tokens=20)
    counted += server.stream("piece by piece", max_tokens=50)
    with ThreadPoolExecutor(4) as clients:  # two slots: the others wait
        for tokens in clients.map(lambda n: server.stream(f"request {n} of many", max_tokens=40 + 40 * n), range(12)):
            counted += tokens
    assert counted["generation"] > 3000
    ledger.agrees(counted)
    assert max(r.running or 0 for r in ledger.readings) > 0
    assert max(r.waiting or 0 for r in ledger.readings) > 0
    assert ledger.readings[-1].running == ledger.readings[-1].waiting == 0
    assert not ledger.failures


def test_usage_tells_the_same(server: LlamaServer, ledger: Ledger) -> None:
    usage = Counter[str]()
    for n in range(4):
        answer = server.answer(f"{LONG} and {n}", max_tokens=5)["usage"]
        usage += Counter(prompt=answer["prompt_tokens"], cached=answer["prompt_tokens_details"]["cached_tokens"])
    assert 0 < usage["cached"] < usage["prompt"]
    counted: Tokens = Counter()
    counted["prompt_computed"] = usage["prompt"] - usage["cached"]
    counted["prompt_cached"] = usage["cached"]
    counted["generation"] = 4 * 5
    ledger.agrees(counted)
    assert {r.cached for r in ledger.readings} == {"known"}


def test_an_aborted_request_counts_what_was_generated(server: LlamaServer, ledger: Ledger) -> None:
    counted = server.stream("a long story that nobody reads to its end", max_tokens=6000, leave_after=20)
    assert ledger.wait(lambda: ledger.tokens["generation"] >= counted["generation"] and ledger.readings[-1].running == 0)
    at_the_end = ledger.tokens["generation"]
    assert counted["generation"] <= at_the_end < 6000
    counted += server.complete("and another one", max_tokens=10)
    counted["generation"] = at_the_end + 10
    ledger.agrees(counted)


def test_what_a_long_answer_generated_so_far_is_in_flight(server: LlamaServer, ledger: Ledger) -> None:
    """The counter gets it at the end; until then the slots tell, and the two together never fall."""
    server.complete("something finished", max_tokens=30)
    assert ledger.wait(lambda: ledger.tokens["generation"] == 30)
    begun = len(ledger.readings)
    with server.post({"prompt": "a long answer", "max_tokens": 4000, "ignore_eos": True, "stream": True}) as response:
        so_far = 0
        for timings in timings_of(response):
            so_far = timings["predicted_n"]
            if so_far == 1000:
                assert ledger.wait(lambda: bool(ledger.readings[-1].in_flight))
    assert so_far == 4000
    assert ledger.wait(lambda: ledger.tokens["generation"] == 30 + 4000)
    during = [r for r in ledger.readings[begun:] if r.in_flight]
    assert len(during) >= 3
    assert all(set(r.in_flight or ()) == {"tiny"} and r.update == "step" for r in during)
    assert ledger.readings[-1].in_flight is None
    assert [r.in_flight["tiny"] for r in during if r.in_flight] == sorted(r.in_flight["tiny"] for r in during if r.in_flight)
    assert during[-1].in_flight is not None
    assert 0 < during[-1].in_flight["tiny"] <= 4000


def test_what_a_reading_says_of_the_server(server: LlamaServer, ledger: Ledger) -> None:
    reading = ledger.readings[-1]
    assert (reading.engine, reading.update) == ("llamacpp", "completion")
    assert reading.version == server.get("/props")[1]["build_info"]
    assert {key.model for key in reading.counters} == {"tiny"}
    assert reading.listener is not None
    assert reading.listener.pid == server.pid
    assert reading.asleep is None or reading.asleep is False
