"""A real vLLM of two engines and two API servers: one page for all of them, which cannot be filtered."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.vllm.ledger import Ledger, followed
from tests.vllm.server import RealVllm, Tokens
from tokenwatt.procfs import ancestors

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def parallel(vllm_python: Path, tiny_model: Path) -> Iterator[RealVllm]:
    """``--data-parallel-size 2``, which makes two API servers as well."""
    server = RealVllm(vllm_python, tiny_model, tiny_model.with_name("parallel.log"), "--data-parallel-size", "2")
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def ledger(parallel: RealVllm) -> Iterator[Ledger]:
    with followed(parallel.url) as book:
        yield book


def engine_tokens(ledger: Ledger) -> Counter[str]:
    """Generated so far, by engine."""
    counters = ledger.readings[-1].counters
    return Counter({key.labels: count for key, count in counters.items() if key.kind == "generation"})


def page(server: RealVllm, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        connection.close()


def test_requests_to_all_engines_add_up(parallel: RealVllm, ledger: Ledger) -> None:
    before = engine_tokens(ledger)
    usage: Tokens = Counter()
    with ThreadPoolExecutor(8) as clients:
        for tokens in clients.map(lambda n: parallel.stream(f"request {n} of many", max_tokens=10 + 13 * n), range(16)):
            usage += tokens
    ledger.agrees(usage)
    assert len(engine_tokens(ledger) - before) == 2  # both of them worked
    assert max(r.running or 0 for r in ledger.readings) > 0
    assert ledger.readings[-1].running == 0
    assert not ledger.failures


def test_the_filter_answers_nothing_and_the_whole_page_is_read(parallel: RealVllm, ledger: Ledger) -> None:
    # Each API server keeps its numbers in files that only the route of the whole page puts together.
    assert page(parallel, "/metrics/?name[]=vllm:generation_tokens_total").strip() == b""
    assert b"process_start_time_seconds" not in page(parallel, "/metrics")
    reading = ledger.readings[-1]
    assert (reading.engine, reading.version, reading.update, reading.cached) == ("vllm", "0.32.0", "step", "known")
    assert {key.model for key in reading.counters} == {"tiny"}
    assert reading.size_bytes > 10_000
    assert reading.process_start is None
    assert reading.listener is not None
    assert parallel.pid in ancestors(reading.listener.pid)  # the first of them, or an API server below it: all hold the socket
