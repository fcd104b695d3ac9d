import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from tokenwatt.demo.node import SimulatedNode
from tokenwatt.demo.page import number
from tokenwatt.demo.server import page

S = 10**9
MODEL = "simulated/Llama-3.1-8B-Instruct"


@pytest.fixture(scope="module")
def node() -> SimulatedNode:
    return SimulatedNode()


def _families(text: bytes) -> dict[str, Metric]:
    return {f.name: f for f in text_string_to_metric_families(text.decode())}


def test_the_page_is_as_long_as_a_real_one(node: SimulatedNode) -> None:
    text = page(node.server("chat-8b"), 100 * S)
    assert 45_000 < len(text) < 60_000
    assert text.count(b"\n") > 500


def test_the_page_has_the_types_of_vllm(node: SimulatedNode) -> None:
    families = _families(page(node.server("chat-8b"), 100 * S))
    types = {name: family.type for name, family in families.items()}
    assert types["vllm:generation_tokens"] == types["vllm:prompt_tokens_by_source"] == types["vllm:prefix_cache_hits"] == "counter"
    assert types["vllm:iteration_tokens_total"] == "histogram"  # sic
    assert types["vllm:num_requests_running"] == types["process_start_time_seconds"] == "gauge"
    assert types["vllm:generation_tokens_created"] == "gauge"
    assert sum(t == "histogram" for t in types.values()) == 16
    assert "unknown" not in types.values()


def test_labels_are_vllm_s(node: SimulatedNode) -> None:
    families = _families(page(node.server("chat-8b"), 100 * S))
    (sample,) = families["vllm:generation_tokens"].samples
    assert sample.labels == {"engine": "0", "model_name": MODEL}
    sources = [s.labels["source"] for s in families["vllm:prompt_tokens_by_source"].samples]
    assert sources == ["local_compute", "local_cache_hit", "external_kv_transfer"]


def test_values_are_those_of_the_server(node: SimulatedNode) -> None:
    server = node.server("chat-70b")
    t_ns = 80 * S + S // 2  # a burst has just begun
    vitals = server.at(t_ns)
    families = _families(page(server, t_ns))

    def value(family: str, i: int = 0) -> float:
        return float(families[family].samples[i].value)

    counted = vitals.counted
    assert value("vllm:generation_tokens") == counted.generation
    assert value("vllm:prompt_tokens") == counted.prompt_computed + counted.prompt_cached
    assert value("vllm:prompt_tokens_cached") == value("vllm:prompt_tokens_by_source", 1) == counted.prompt_cached
    assert value("vllm:num_requests_running") == counted.running > 0
    assert value("vllm:num_requests_waiting") == counted.waiting > 0
    assert value("process_start_time_seconds") == round(vitals.start_wall_s, 2)


def test_histograms_are_sound_and_never_fall(node: SimulatedNode) -> None:
    first, last = (_families(page(node.server("code-32b"), t)) for t in (10 * S, 300 * S))
    for name, family in last.items():
        if family.type != "histogram":
            continue
        buckets = [s.value for s in family.samples if s.name.endswith("_bucket")]
        (count,) = (s.value for s in family.samples if s.name.endswith("_count"))
        assert buckets == sorted(buckets), name
        assert buckets[-1] == count > 0, name
        assert all(b.value >= a.value for a, b in zip(first[name].samples, family.samples, strict=True)), name


def test_a_filtered_page_is_what_prometheus_client_would_answer(node: SimulatedNode) -> None:
    server = node.server("chat-8b")
    counted = server.at(200 * S).counted
    registry = CollectorRegistry()
    labels = ("engine", "model_name")
    Gauge("vllm:num_requests_running", "Number of requests in model execution batches.", labels, registry=registry).labels("0", MODEL).set(
        counted.running
    )
    generated = Counter("vllm:generation_tokens", "Number of generation tokens processed.", labels, registry=registry)
    generated.labels("0", MODEL).inc(counted.generation)
    sources = Counter("vllm:prompt_tokens_by_source", "Number of prompt tokens by source.", (*labels, "source"), registry=registry)
    sources.labels("0", MODEL, "local_compute").inc(counted.prompt_computed)
    sources.labels("0", MODEL, "local_cache_hit").inc(counted.prompt_cached)
    sources.labels("0", MODEL, "external_kv_transfer").inc(0)
    names = ["vllm:num_requests_running", "vllm:generation_tokens_total", "vllm:prompt_tokens_by_source_total", "no_such_metric"]
    theirs = generate_latest(registry.restricted_registry(names)).decode().splitlines()
    ours = page(server, 200 * S, names).decode().splitlines()
    assert sorted(ours) == sorted(theirs)


def test_a_filter_can_ask_for_what_is_beside_a_counter(node: SimulatedNode) -> None:
    server = node.server("chat-8b")
    text = page(server, 0, ["vllm:generation_tokens_created", "vllm:iteration_tokens_total_sum"]).decode()
    samples = [line.partition("{")[0] for line in text.splitlines() if not line.startswith("#")]
    assert samples == ["vllm:generation_tokens_created", "vllm:iteration_tokens_total_sum"]
    assert page(server, 0, ["no_such_metric"]) == b""
    assert page(server, 0, []) == b""


@given(st.floats(min_value=0, max_value=1e15) | st.integers(0, 2**53).map(float))
def test_numbers_are_written_as_prometheus_client_writes_them(value: float) -> None:
    text = number(value)
    assert float(text) == value
    assert text == floatToGoString(value)  # type: ignore[no-untyped-call]
