"""The mechanism, on engines made up for each case; the engines there are, are in test_engines.py and test_pages.py."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwatt.servers.engines.description import Engine, Gauge, Scheme, TokenCounter
from tokenwatt.servers.engines.sglang import CLASSIC, REALTIME, SGLANG
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.page.counters import Counters, holds, is_settled, read_counters, scheme_of, wanted, wanted_by
from tokenwatt.servers.page.exposition import Page, read
from tokenwatt.types import SeriesKey

PROMPT = TokenCounter("p_total", "prompt_computed")
ANSWER = TokenCounter("g_total", "generation")
FRESH = b'sglang:num_running_reqs{tp_rank="0"} 0\n'
REALTIME_LINE = b'sglang:realtime_tokens_total{mode="prefill_compute",model_name="m"} 10\n'
CLASSIC_LINES = b'sglang:prompt_tokens_total{model_name="m"} 10\nsglang:generation_tokens_total{model_name="m"} 3\n'


def engine(*schemes: Scheme, same_work: tuple[str, ...] = (), asleep: Gauge | None = None) -> Engine:
    return Engine("made-up", schemes, same_work=same_work, asleep_gauge=asleep)


def scheme(
    *counters: TokenCounter,
    running: tuple[Gauge, ...] = (),
    latency: str | None = None,
    marks: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    sparse: bool = False,
) -> Scheme:
    return Scheme(
        counters or (ANSWER,), "unknown", "completion", running=running, latency=latency, marks=marks, needs=needs, sparse=sparse
    )


def page_for(engine: Engine, body: bytes) -> Page:
    return read(body, wanted([engine]))


def counted(engine: Engine, body: bytes) -> Counters:
    page = page_for(engine, body)
    found = scheme_of(page, engine)
    assert found is not None
    return read_counters(page, engine, found)


# --- how a server counts -----------------------------------------------------------------------------------------------------------------


def test_a_scheme_holds_where_all_its_counters_and_marks_are() -> None:
    made_up = engine(scheme(PROMPT, ANSWER, marks=("mark",)))
    assert scheme_of(page_for(made_up, b"p_total 1\ng_total 1\nmark 0\n"), made_up) is not None
    for body in (b"p_total 1\ng_total 1\n", b"p_total 1\nmark 0\n"):
        assert scheme_of(page_for(made_up, body), made_up) is None


def test_what_a_scheme_needs_it_needs_also_where_it_is_sparse() -> None:
    made_up = engine(scheme(marks=("mark", "other"), needs=("outer",), sparse=True))
    assert scheme_of(page_for(made_up, b"other 1\nouter 0\n"), made_up) is not None
    assert scheme_of(page_for(made_up, b"other 1\nmark 1\ng_total 4\n"), made_up) is None
    assert scheme_of(page_for(made_up, b"outer 1\ng_total 4\n"), made_up) is None


@pytest.mark.parametrize(
    ("body", "found", "settled"),
    [
        (FRESH, REALTIME, False),
        (FRESH + REALTIME_LINE, REALTIME, True),
        (FRESH + CLASSIC_LINES, CLASSIC, True),
        (FRESH + CLASSIC_LINES + REALTIME_LINE, REALTIME, True),
    ],
    ids=["fresh", "realtime", "classic", "both"],
)
def test_a_fresh_sglang_counts_by_what_comes_first(body: bytes, found: Scheme, settled: bool) -> None:
    page = page_for(SGLANG, body)
    assert scheme_of(page, SGLANG) is found
    assert is_settled(page, found) is settled
    assert holds(page, found)


def test_a_fresh_page_is_a_good_reading_without_series() -> None:
    got = counted(SGLANG, FRESH)
    assert (got.tokens, got.running) == ({}, 0)


def test_a_page_of_something_else_is_none() -> None:
    assert scheme_of(page_for(SGLANG, b"vllm:generation_tokens_total 1\n"), SGLANG) is None


def test_a_sparse_cached_counter_is_known_from_its_first_value_on() -> None:
    assert counted(SGLANG, FRESH + CLASSIC_LINES).cached == "unknown"
    assert counted(SGLANG, FRESH + CLASSIC_LINES + b'sglang:cached_tokens_total{model_name="m"} 1\n').cached == "known"
    # So that nothing is counted anew when it comes, the prompt counter's series are the same.
    assert SeriesKey("m", "prompt", "") in counted(SGLANG, FRESH + CLASSIC_LINES).tokens


def test_a_metric_cannot_be_wanted_as_two_things() -> None:
    with pytest.raises(ValueError, match="g_total cannot be a counter and a gauge"):
        wanted([engine(scheme()), engine(scheme(running=(Gauge("g_total"),)))])
    assert wanted([engine(scheme(marks=("g_total",)))]).types["g_total"] == "counter"


def test_a_metric_that_another_engine_wants_otherwise_does_not_matter() -> None:
    ours, theirs = engine(scheme()), engine(scheme(PROMPT))
    page = read(b"# TYPE p_total gauge\np_total 1\n# TYPE g_total counter\ng_total 2\n", wanted([ours, theirs]))
    assert read_counters(page, ours, ours.schemes[0]).tokens == {SeriesKey("", "generation", ""): 2}
    with pytest.raises(Unusable, match="p_total is a gauge on this page, not a counter"):
        read_counters(page, theirs, theirs.schemes[0])


def test_a_settled_scheme_wants_no_names_of_others() -> None:
    made_up = engine(scheme(PROMPT), scheme(ANSWER, latency="seconds"), asleep=Gauge("asleep"))
    assert wanted_by(made_up, made_up.schemes[1]).types == {
        "g_total": "counter",
        "asleep": "gauge",
        "seconds_bucket": "histogram",
        "process_start_time_seconds": "gauge",
    }


# --- tokens ------------------------------------------------------------------------------------------------------------------------------


def test_ranks_are_apart_and_labels_not_heard_of_stay() -> None:
    got = counted(engine(scheme(), same_work=("tp", "pp")), b'g_total{tp="1",pp="0",zone="b",model="m"} 3\n')
    assert got.tokens == {SeriesKey("m", "generation", 'zone="b"', 'pp="0",tp="1"'): 3}


def test_two_series_of_one_key_refuse_the_page() -> None:
    body = b'g_total{model="m"} 3\ng_total{model_name="m"} 3\n'
    with pytest.raises(Unusable, match="g_total counts the same tokens twice"):
        counted(engine(scheme()), body)


def test_series_of_no_kind_are_not_counted_whatever_they_hold() -> None:
    by_label = TokenCounter("g_total", None, "of", (("answers", "generation"),))
    got = counted(engine(scheme(by_label)), b'g_total{of="answers"} 3\ng_total{of="rates"} 0.5\ng_total -1\n')
    assert got.tokens == {SeriesKey("", "generation", 'of="answers"'): 3}


@pytest.mark.parametrize("value", ["1536", "1536.0", "1.536e+03", "+1536"])
def test_sums_of_histograms_are_floats_that_are_whole(value: str) -> None:
    made_up = engine(scheme(TokenCounter("g_sum", "generation", of="histogram")))
    body = f"# TYPE g histogram\ng_bucket{{le=\"+Inf\"}} 3\ng_sum {value}\ng_count 3\n".encode()
    assert list(counted(made_up, body).tokens.values()) == [1536]
    with pytest.raises(Unusable, match=r"g_sum is 1536\.5, which is no number of tokens"):
        counted(made_up, body.replace(value.encode(), b"1536.5"))


# --- gauges ------------------------------------------------------------------------------------------------------------------------------


def test_requests_are_summed_over_series_and_not_over_ranks_of_the_same_work() -> None:
    made_up = engine(scheme(running=(Gauge("a"), Gauge("b", "type", ("active", "")))), same_work=("tp",))
    body = b"""g_total 1
a{dp="0",tp="0"} 2
a{dp="0",tp="1"} 3
a{dp="1",tp="0"} 5
b{type="active"} 10
b{type="max"} 512
b 100
"""
    assert counted(made_up, body).running == 118


@pytest.mark.parametrize("line", [b"", b"# TYPE a gauge\n", b"a NaN\n", b"a -1\n", b"a 1e300\n", b'a 1\na{x="1"} +Inf\n'])
def test_requests_that_are_not_told_or_no_number_are_not_known(line: bytes) -> None:
    assert counted(engine(scheme(running=(Gauge("a"),))), b"g_total 1\n" + line).running is None


@pytest.mark.parametrize(
    ("line", "asleep"),
    [(b"", None), (b'state{is="awake"} 1\n', None), (b'state{is="asleep"} 0\n', False), (b'state{is="asleep"} 1\n', True)],
)
def test_asleep_is_a_gauge_above_0(line: bytes, asleep: bool | None) -> None:
    assert counted(engine(scheme(), asleep=Gauge("state", "is", ("asleep",))), b"g_total 1\n" + line).asleep is asleep


# --- latency -----------------------------------------------------------------------------------------------------------------------------


def latency(*lines: str) -> tuple[tuple[float, int], ...] | None:
    body = "".join(f"{line}\n" for line in ("g_total 1", "# TYPE s histogram", *lines))
    return counted(engine(scheme(latency="s")), body.encode()).latency


def test_latency_is_summed_over_series_and_ascends() -> None:
    assert latency(
        's_bucket{le="+Inf",m="a"} 4',
        's_bucket{le="10",m="a"} 3.0',
        's_bucket{le="0.5",m="a"} 1',
        's_bucket{m="b",le="0.5"} 0',
        's_bucket{m="b",le="10.0"} 1',
        's_bucket{m="b",le="+Inf"} 1',
        "s_sum 7.5",
        "s_count 5",
    ) == ((0.5, 1), (10.0, 4), (math.inf, 5))


def test_of_series_with_other_bounds_those_in_common_hold() -> None:
    assert latency(
        's_bucket{m="a",le="1"} 1', 's_bucket{m="a",le="5"} 2', 's_bucket{m="a",le="+Inf"} 2', 's_bucket{le="5"} 7', 's_bucket{le="+Inf"} 8'
    ) == ((5.0, 9), (math.inf, 10))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ('s_bucket{le="1"} 1',),
        ("s_bucket 1",),
        ('s_bucket{le="x"} 1', 's_bucket{le="+Inf"} 1'),
        ('s_bucket{le="nan"} 1', 's_bucket{le="+Inf"} 1'),
        ('s_bucket{le="1"} 2', 's_bucket{le="+Inf"} 1'),
        ('s_bucket{le="1"} NaN', 's_bucket{le="+Inf"} 1'),
        ('s_bucket{le="1"} -1', 's_bucket{le="+Inf"} 1'),
        ('s_bucket{le="+Inf"} 1e300',),
    ],
)
def test_what_is_no_histogram_has_no_latency(lines: tuple[str, ...]) -> None:
    assert latency(*lines) is None


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=4))
def test_latency_counts_every_request_once(series: list[list[int]]) -> None:
    bounds = ["0.1", "1", "10", "+Inf"]
    lines = [f's_bucket{{i="{i}",le="{b}"}} {sum(counts[: n + 1])}' for i, counts in enumerate(series) for n, b in enumerate(bounds)]
    got = latency(*lines)
    assert got is not None
    assert [count for _, count in got] == [sum(sum(counts[: n + 1]) for counts in series) for n in range(4)]
