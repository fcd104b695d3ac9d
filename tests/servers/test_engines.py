from __future__ import annotations

import pytest

from tests.servers.conftest import PAGES
from tests.servers.fake_server import vllm_page
from tokenwatt.servers.counters import Counters, read_counters, scheme_of, wanted
from tokenwatt.servers.engines import ENGINES, VLLM
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.exposition import read
from tokenwatt.types import SeriesKey

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def counters(body: bytes) -> Counters:
    page = read(body, wanted([VLLM]))
    scheme = scheme_of(page, VLLM)
    assert scheme is not None
    return read_counters(page, VLLM, scheme)


def test_vllm_0_32_as_a_real_server_answered() -> None:
    got = counters((PAGES / "vllm-0.32.0.txt").read_bytes())
    assert got.tokens == {
        SeriesKey("tiny", "prompt_computed", 'engine="0",source="local_compute"'): 4,
        SeriesKey("tiny", "prompt_cached", 'engine="0",source="local_cache_hit"'): 0,
        SeriesKey("tiny", "prompt_cached", 'engine="0",source="external_kv_transfer"'): 0,
        SeriesKey("tiny", "generation", 'engine="0"'): 200,
    }
    assert (got.cached, got.running, got.waiting, got.process_start) == ("known", 0, 0, 1795444229.27)


def test_a_real_filtered_page_says_as_much_as_a_whole_one() -> None:
    filtered = counters((PAGES / "vllm-0.32.0.filtered.txt").read_bytes())
    whole = counters((PAGES / "vllm-0.32.0.txt").read_bytes())
    assert filtered.tokens.keys() == whole.tokens.keys()
    assert filtered.cached == whole.cached
    assert filtered.process_start is not None


@pytest.mark.parametrize("version", ["0.16.0", "0.33.0"])
def test_vllm_by_source(version: str) -> None:
    got = counters((PAGES / f"vllm-{version}.trimmed.txt").read_bytes())
    assert got.tokens == {
        SeriesKey(LLAMA, "prompt_computed", 'engine="0",source="local_compute"'): 1024,
        SeriesKey(LLAMA, "prompt_cached", 'engine="0",source="local_cache_hit"'): 512,
        SeriesKey(LLAMA, "prompt_cached", 'engine="0",source="external_kv_transfer"'): 0,
        SeriesKey(LLAMA, "generation", 'engine="0"'): 124,
    }
    assert (got.cached, got.running) == ("known", 2)


def test_a_source_not_heard_of_yet_is_not_computed_here() -> None:
    page = vllm_page().replace(b"local_cache_hit", b"teleport")
    assert SeriesKey("tiny", "prompt_cached", 'engine="0",source="teleport"') in counters(page).tokens


def test_vllm_with_a_cached_counter_only_leaves_the_subtraction_to_accounting() -> None:
    body = b"""\
vllm:prompt_tokens_total{engine="0",model_name="m"} 1536.0
vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 512.0
vllm:generation_tokens_total{engine="0",model_name="m"} 124.0
"""
    got = counters(body)
    assert got.tokens == {
        SeriesKey("m", "prompt", 'engine="0"'): 1536,
        SeriesKey("m", "prompt_cached", 'engine="0"'): 512,
        SeriesKey("m", "generation", 'engine="0"'): 124,
    }
    assert got.cached == "known"


@pytest.mark.parametrize("labels", ['model_name="m"', 'engine="0",model_name="m"'], ids=["0.8.5", "0.11"])
def test_vllm_before_0_16_knows_cache_hits_only_at_admission_so_they_are_left(labels: str) -> None:
    got = counters(
        f"""\
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{{{labels}}} 512.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{{labels}}} 1536.0
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{{{labels}}} 1.79e+09
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{{labels}}} 124.0
""".encode()
    )
    assert {(k.model, k.kind): n for k, n in got.tokens.items()} == {("m", "prompt_computed"): 1536, ("m", "generation"): 124}
    assert got.cached == "unknown"


def test_triton_names_the_model_otherwise() -> None:
    got = counters((PAGES / "triton-vllm-backend.txt").read_bytes())
    assert got.tokens == {
        SeriesKey("vllm_model", "prompt_computed", 'version="1"'): 10,
        SeriesKey("vllm_model", "generation", 'version="1"'): 16,
    }
    assert (got.running, got.waiting, got.process_start) == (None, None, None)


def test_engines_of_one_server_are_summed_by_accounting_and_their_requests_here() -> None:
    one = vllm_page().replace(b"process_start", b"other_start")
    two = one.replace(b'engine="0"', b'engine="1"')
    got = counters(one + b"".join(line + b"\n" for line in two.splitlines() if not line.startswith(b"#")))
    assert {k.labels for k in got.tokens if k.kind == "generation"} == {'engine="0"', 'engine="1"'}
    assert (got.running, got.waiting, got.process_start) == (4, 2, None)


def test_models_of_one_server_are_kept_apart() -> None:
    two = b"".join(line.replace(b'"tiny"', b'"other"') + b"\n" for line in vllm_page(start=None).splitlines() if not line.startswith(b"#"))
    assert {k.model for k in counters(vllm_page() + two).tokens} == {"tiny", "other"}


def test_labels_are_one_string_whatever_their_order_and_content() -> None:
    page = b"""\
vllm:prompt_tokens_total{z="1",model="m",a="q\\"\\\\\\n"} 1
vllm:generation_tokens_total{a="q\\"\\\\\\n",model="m",z="1"} 2
"""
    keys = list(counters(page).tokens)
    assert [k.labels for k in keys] == ['a="q\\"\\\\\\n",z="1"'] * 2
    assert [k.model for k in keys] == ["m", "m"]


def test_declared_counters_without_series_are_no_tokens_yet() -> None:
    got = counters(b"# TYPE vllm:prompt_tokens_total counter\n# TYPE vllm:generation_tokens_total counter\nother 1\n")
    assert got.tokens == {}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "0.5", "1e300", "9223372036854775808"])
def test_a_value_that_is_no_number_of_tokens_refuses_the_page(value: str) -> None:
    page = vllm_page().replace(b"100", value.encode())
    with pytest.raises(Unusable, match=r"vllm:generation_tokens_total is .*no number of tokens") as refused:
        counters(page)
    assert refused.value.rejected


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-3"])
def test_a_gauge_that_is_no_number_is_not_known(value: bytes) -> None:
    got = counters(vllm_page().replace(b"} 2.0", b"} " + value).replace(b"1790000000.5", value))
    assert (got.running, got.waiting, got.process_start) == (None, 1, None)


def test_a_page_without_prompt_counters_is_not_half_read() -> None:
    assert scheme_of(read(b"vllm:generation_tokens_total 1\n", wanted([VLLM])), VLLM) is None


def test_the_names_of_engines_are_those_of_the_contract() -> None:
    known = (
        "vllm sglang llamacpp tgi tei trtllm triton nim dynamo lmdeploy ray kserve aphrodite xinference localai lemonade mistralrs generic"
    )
    assert set(ENGINES) <= set(known.split())
    assert all(name == engine.name for name, engine in ENGINES.items())
