from __future__ import annotations

import pytest

from tests.servers.conftest import PAGES
from tests.servers.fake_server import vllm_page
from tokenwatt.servers.engines import ENGINES
from tokenwatt.servers.engines.description import Engine, InFlight
from tokenwatt.servers.engines.generic import generic
from tokenwatt.servers.engines.llamacpp import LLAMACPP
from tokenwatt.servers.engines.sglang import SGLANG
from tokenwatt.servers.engines.vllm import VLLM
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.page.counters import Counters, read_counters, scheme_of, wanted
from tokenwatt.servers.page.exposition import read
from tokenwatt.types import SeriesKey

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def counters(body: bytes, engine: Engine = VLLM) -> Counters:
    page = read(body, wanted([engine]))
    scheme = scheme_of(page, engine)
    assert scheme is not None
    return read_counters(page, engine, scheme)


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


def test_sglangs_mode_not_heard_of_yet_counts_nothing() -> None:
    page = b"""\
sglang:realtime_tokens_total{mode="decode",model_name="m",tp_rank="0"} 5
sglang:realtime_tokens_total{mode="decode_replay",model_name="m",tp_rank="0"} 7.5
"""
    assert counters(page, SGLANG).tokens == {SeriesKey("m", "generation", 'mode="decode"', 'tp_rank="0"'): 5}


def test_sglangs_data_ranks_are_other_work_and_its_tensor_ranks_the_same() -> None:
    keys = counters((PAGES / "sglang-0.5.23-ranks.txt").read_bytes(), SGLANG).tokens
    assert {key.rank for key in keys} == {f'moe_ep_rank="0",pp_rank="{pp}",tp_rank="{tp}"' for pp in "01" for tp in "01"}
    assert {key.labels for key in keys if key.kind == "generation"} == {
        f'dp_rank="{dp}",engine_type="unified",mode="decode"' for dp in "01"
    }


def test_a_llama_server_that_escapes_its_page_is_refused_with_the_reason() -> None:
    # Builds around b7010 (ggml-org/llama.cpp#17384).
    page = (PAGES / "llamacpp-b6100.txt").read_bytes()
    with pytest.raises(Unusable, match="JSON"):
        read(b'"' + page.replace(b"\n", b"\\n") + b'"', wanted([LLAMACPP]), "text/plain; version=0.0.4")


def test_llama_servers_slots_are_looked_into_as_their_versions_write_them() -> None:
    assert LLAMACPP.in_flight == InFlight("/slots", "is_processing", (("next_token", "n_decoded"),))


@pytest.mark.parametrize(
    ("names", "kinds", "cached"),
    [
        ({"prompt": "p"}, {"prompt_computed": 9}, "unknown"),
        ({"generation": "g_sum"}, {"generation": 4}, "unknown"),
        ({"prompt": "p", "prompt_cached": "c_total", "generation": "g_sum"}, {"prompt": 9, "prompt_cached": 3, "generation": 4}, "known"),
    ],
)
def test_a_generic_engine_reads_what_the_settings_name(names: dict[str, str], kinds: dict[str, int], cached: str) -> None:
    page = b"# TYPE p counter\np 9\n# TYPE c counter\nc_total 3\n# TYPE g histogram\ng_sum 4.0\ng_count 2\n"
    got = counters(page, generic(**names))
    assert {key.kind: n for key, n in got.tokens.items()} == kinds
    assert (got.cached, got.update) == (cached, "completion")


def test_a_generic_engine_waits_for_all_of_its_names() -> None:
    engine = generic(prompt="p", generation="g")
    assert scheme_of(read(b"p 9\nq 1\n", wanted([engine])), engine) is None


def test_a_generic_engine_refuses_names_that_count_nothing_or_twice() -> None:
    with pytest.raises(ValueError, match="nothing to count"):
        generic()
    with pytest.raises(ValueError, match="twice"):
        generic(prompt="x:tokens_total", generation="x_tokens_total")
    with pytest.raises(ValueError, match="is no name of a metric"):
        generic(prompt='x_total{a="1"}')
    with pytest.raises(ValueError, match="is a time"):
        wanted([generic(prompt="tokens_created")])


def test_a_generic_name_that_is_a_gauge_is_an_error() -> None:
    with pytest.raises(Unusable, match="g is a gauge on this page, not a counter"):
        counters(b"# TYPE g gauge\ng 4\n", generic(generation="g"))


def test_the_names_of_engines_are_those_of_the_contract() -> None:
    # And generic, which is made of the settings.
    known = "vllm sglang llamacpp tgi tei trtllm triton nim dynamo lmdeploy ray kserve aphrodite xinference localai lemonade mistralrs"
    assert set(ENGINES) == set(known.split())
    assert all(name == engine.name for name, engine in ENGINES.items())


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: engine.name)
def test_an_engine_is_described_in_full(engine: Engine) -> None:
    assert engine.source
    assert engine.no_counters
    assert all(path.startswith("/") and why for path, why in engine.never)
    for scheme in engine.schemes:
        assert scheme.marks or not scheme.sparse, "without a mark nothing tells that it is this engine, before its counters are there"
        assert all(c.name.endswith("_sum") == (c.of == "histogram") for c in scheme.counters)
