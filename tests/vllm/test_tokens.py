"""What is read of a real vLLM is what its own ``usage`` fields add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.vllm.ledger import Ledger, followed
from tests.vllm.server import RealVllm, Tokens
from tokenwatt.procfs import ancestors

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

LONG = " ".join(f"joule {n} buys {n * 7 % 101} of them" for n in range(40))


@pytest.fixture
def ledger(vllm: RealVllm) -> Iterator[Ledger]:
    """Books what a poller reads, from before the test's first request on."""
    with followed(vllm.url) as book:
        yield book


def test_streaming_and_concurrent_requests(vllm: RealVllm, ledger: Ledger) -> None:
    usage = vllm.complete("one request alone", max_tokens=20)
    usage += vllm.stream("piece by piece", max_tokens=50)
    with ThreadPoolExecutor(8) as clients:
        for tokens in clients.map(lambda n: vllm.stream(f"request {n} of many", max_tokens=10 + 13 * n), range(12)):
            usage += tokens
    assert usage["generation"] > 900
    ledger.agrees(usage)
    assert max(r.running or 0 for r in ledger.readings) > 0
    assert ledger.readings[-1].running == 0
    assert not ledger.failures


def test_answers_to_one_prompt_each_compute_it(vllm: RealVllm, ledger: Ledger) -> None:
    usage = vllm.complete("three answers to one prompt", max_tokens=16, n=3, ignore_eos=True)
    # usage bills the prompt once. The engine runs a request for each answer, and counts what it did (vllm-project/vllm#5250).
    usage["prompt_computed"] *= 3
    ledger.agrees(usage)


def test_prompts_from_the_prefix_cache(vllm: RealVllm, ledger: Ledger) -> None:
    usage: Tokens = Counter()
    for n in range(4):
        usage += vllm.complete(f"{LONG} and {n}", max_tokens=5)
    assert usage["prompt_cached"] > 100
    assert usage["prompt_computed"] > 100
    ledger.agrees(usage)
    assert {r.cached for r in ledger.readings} == {"known"}


def test_an_aborted_request_counts_what_was_generated(vllm: RealVllm, ledger: Ledger) -> None:
    usage = vllm.stream("a long story that nobody reads to its end", max_tokens=950, leave_after=20)
    assert ledger.wait(lambda: ledger.tokens["generation"] >= usage["generation"] and ledger.readings[-1].running == 0)
    at_the_end = ledger.tokens["generation"]
    # The server notices somewhat later that its reader has left, and what it generated until then is work done.
    assert usage["generation"] <= at_the_end < 950
    usage += vllm.complete("and another one", max_tokens=10, ignore_eos=True)
    usage["generation"] = at_the_end + 10
    ledger.agrees(usage)


def test_what_a_reading_says_of_the_server(vllm: RealVllm, ledger: Ledger) -> None:
    reading = ledger.readings[-1]
    assert (reading.engine, reading.version, reading.update) == ("vllm", "0.32.0", "step")
    assert {key.model for key in reading.counters} == {"tiny"}
    assert reading.listener is not None
    assert reading.listener.pid == vllm.pid
    assert ancestors(reading.listener.pid)[0] == vllm.pid
    assert reading.process_start is not None
    assert ledger.wait(lambda: ledger.readings[-1].size_bytes < 1000)  # only what it reads, once it knows: the whole page has 50 kB


def test_a_restart_in_the_middle(vllm: RealVllm, ledger: Ledger) -> None:
    usage = vllm.stream("before the restart", max_tokens=60)
    ledger.agrees(usage)
    before = ledger.readings[-1]
    vllm.stop()
    assert ledger.wait(lambda: bool(ledger.failures) and ledger.failures[-1].gone)
    vllm.start()
    usage += vllm.stream("after the restart", max_tokens=40)
    usage += vllm.complete(LONG, max_tokens=10)
    ledger.agrees(usage)
    after = ledger.readings[-1]
    assert after.process_start != before.process_start
    assert after.listener != before.listener
    assert ledger.wait(lambda: ledger.readings[-1].t_ns > after.t_ns)
