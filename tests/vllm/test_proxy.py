"""The proxy in front of a real vLLM: what it reports is what vLLM's own counters say, for each kind of request that vLLM answers."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.process import wait_for
from tests.proxy.meter import Meter
from tests.proxy.running import Running
from tests.vllm.server import RealVllm
from tokenwatt.proxy.tally import Unmetered

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
LONG = " ".join(f"joule {n} buys {n * 7 % 101} of them" for n in range(40))
KINDS = {"local_compute": "prompt_computed", "local_cache_hit": "prompt_cached"}


@pytest.fixture(scope="module")
def chatty(vllm_python: Path, tiny_model: Path) -> Iterator[RealVllm]:
    """A vLLM that can chat."""
    template = tiny_model.with_name("template.jinja")
    template.write_text(TEMPLATE)
    server = RealVllm(vllm_python, tiny_model, tiny_model.with_name("chatty.log"), "--chat-template", str(template))
    try:
        server.start()
        yield server
    finally:
        server.close()


def ask(port: int, path: str, body: dict[str, Any]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
        connection.request("POST", path, json.dumps({"model": "tiny", **body}), headers)
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return answer
    finally:
        connection.close()


def counted(server: RealVllm) -> Counter[str]:
    """vLLM's own counters, asked past the proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    finally:
        connection.close()
    tokens: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "vllm:generation_tokens_total":
                tokens["generation"] += int(sample.value)
            elif sample.name == "vllm:prompt_tokens_by_source_total" and sample.labels["source"] in KINDS:
                tokens[KINDS[sample.labels["source"]]] += int(sample.value)
    return tokens


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_what_is_reported_is_what_vllm_counted(chatty: RealVllm, meter: Meter) -> None:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    before = counted(chatty)
    with Running(chatty.url, meter.url) as proxy:
        port = proxy.port
        ask(port, "/v1/completions", {"prompt": "one alone", "max_tokens": 20})
        ask(port, "/v1/completions", {"prompt": "piece by piece", "max_tokens": 50, **usage})
        ask(port, "/v1/chat/completions", {"messages": chat("hello"), "max_tokens": 30})
        for n in range(3):  # from the second on, most of the prompt is cached
            ask(port, "/v1/chat/completions", {"messages": chat(f"{LONG} {n}"), "max_tokens": 10, **usage})
        ask(port, "/v1/responses", {"input": f"{LONG} and more", "max_output_tokens": 12})
        ask(port, "/v1/responses", {"input": f"{LONG} and less", "max_output_tokens": 13, "stream": True})
        continuous = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        with ThreadPoolExecutor(6) as clients:
            bodies = [{"prompt": f"of many {n}", "max_tokens": 9 + n, **continuous} for n in range(12)]
            list(clients.map(lambda body: ask(port, "/v1/completions", body), bodies))
        assert counted(chatty)["prompt_cached"] > before["prompt_cached"] + 100
        wait_for(lambda: meter.tokens("tiny") == counted(chatty) - before, why=lambda: f"{meter.tokens()}, {counted(chatty) - before}")
        assert proxy.reporter.tally.unmetered == {}
        assert proxy.reporter.tally.metered == 20

        # Anthropic's usage does not tell what was cached here: the sums agree.
        for text in ("to the point", LONG):
            ask(port, "/v1/messages", {"messages": chat(text), "max_tokens": 14})
            ask(port, "/v1/messages", {"messages": chat(text), "max_tokens": 15, "stream": True})
        told = counted(chatty) - before
        wait_for(lambda: meter.tokens().total() == told.total(), why=lambda: f"{meter.tokens()}, {told}")
        assert meter.tokens()["generation"] == told["generation"]

        # Not asked for usage, a stream tells none: vLLM counted it, and nothing is made up here.
        ask(port, "/v1/chat/completions", {"messages": chat("silent"), "max_tokens": 10, "stream": True})
        wait_for(lambda: proxy.reporter.tally.unmetered == {Unmetered.STREAM_WITHOUT_USAGE: 1})
        assert meter.tokens().total() == told.total()
    assert {report["model"] for report in meter.accepted} == {"tiny"}
    assert meter.accepted[-1]["running"] == 0


@pytest.fixture
def meter() -> Iterator[Meter]:
    made = Meter()
    yield made
    made.close()
