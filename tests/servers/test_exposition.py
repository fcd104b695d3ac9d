from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import fuzz_page
from tests.servers.conftest import PAGES
from tokenwatt.servers.engines import ENGINES
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.page.counters import wanted
from tokenwatt.servers.page.exposition import Labels, Page, Sample, read
from tokenwatt.servers.page.wanted import Wanted

WANTED = Wanted(
    {
        "vllm:generation_tokens_total": "counter",
        "vllm:prompt_tokens_total": "counter",
        "vllm:num_requests_running": "gauge",
        "process_start_time_seconds": "gauge",
        "nv_llm_input_token_len_sum": "histogram",
        "sglang:e2e_request_latency_seconds_bucket": "histogram",
    }
)
GENERATION = "vllm:generation_tokens_total"
LATENCY = "sglang:e2e_request_latency_seconds_bucket"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Parser = Callable[[str], Iterable[Metric]]


def only(page: Page) -> Sample:
    ((sample,),) = page.samples.values()
    return sample


def theirs(text: str, wanted: Wanted, parse: Parser = text_string_to_metric_families) -> dict[str, list[tuple[Labels, str]]]:
    """What prometheus_client's own parser finds of the wanted names, under the names as they were asked for."""
    found: dict[str, list[tuple[Labels, str]]] = {}
    names = {name.replace(":", "_"): name for name, type_ in wanted.types.items() if type_ != "mark"}
    for family in parse(text):
        for sample in family.samples:
            spelled = sample.name.replace(":", "_")
            # It gives every counter a _total.
            if (name := names.get(spelled) or names.get(spelled.removesuffix("_total"))) is not None:
                found.setdefault(name, []).append((tuple(sorted(sample.labels.items())), repr(float(sample.value))))
    return found


def ours(page: Page) -> dict[str, list[tuple[Labels, str]]]:
    return {name: [(s.labels, repr(s.value)) for s in series] for name, series in page.samples.items()}


@pytest.mark.parametrize("name", sorted(p.name for p in PAGES.glob("*.txt")))
def test_reads_pages_as_prometheus_client_does(name: str) -> None:
    body = (PAGES / name).read_bytes()
    if not body.endswith(b"# EOF\n"):
        every = wanted(ENGINES.values())
        assert ours(read(body, every)) == theirs(body.decode(), every)


label_values = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
numbers = st.one_of(st.floats(), st.integers(0, 2**53).map(float), st.sampled_from([math.inf, -math.inf, math.nan]))


@given(st.dictionaries(st.tuples(label_values, label_values), numbers, max_size=4), numbers)
def test_reads_back_what_prometheus_client_writes(series: dict[tuple[str, str], float], start: float) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("vllm:num_requests_running", "help with \\ and \n", ["model_name", "engine"], registry=registry)
    Gauge("process_start_time_seconds", "", registry=registry).set(start)
    Counter("vllm:prompt_tokens", "another", registry=registry)
    for (model, engine), value in series.items():
        gauge.labels(model, engine).set(value)
    body = generate_latest(registry)
    assert ours(read(body, WANTED)) == theirs(body.decode(), WANTED)


@st.composite
def registries(draw: st.DrawFn) -> CollectorRegistry:
    """A counter, a gauge and two histograms, with exemplars."""
    registry = CollectorRegistry()
    counter = Counter("vllm:generation_tokens", "", ["model_name"], registry=registry)
    lengths = Histogram("nv_llm_input_token_len", "", ["model"], buckets=[10, 100], registry=registry)
    latency = Histogram("sglang:e2e_request_latency_seconds", "", ["model_name"], buckets=[0.4, 1, 60], registry=registry)
    Gauge("vllm:num_requests_running", "", registry=registry).set(draw(numbers))
    for model in draw(st.sets(label_values, max_size=3)):
        counter.labels(model).inc(draw(st.integers(0, 2**53)), exemplar=draw(exemplars))
        for n in draw(st.lists(st.integers(0, 10**6), max_size=4)):
            lengths.labels(model).observe(n, exemplar=draw(exemplars))
            latency.labels(model).observe(n / 1000, exemplar=draw(exemplars))
    return registry


exemplars = st.none() | st.fixed_dictionaries(
    # Their own parser does not read escapes in exemplars.
    {"trace_id": st.text(st.characters(codec="ascii", exclude_characters='"\\'), max_size=8)}
)


@given(registries())
def test_reads_back_histograms_as_prometheus_client_writes_them(registry: CollectorRegistry) -> None:
    body = generate_latest(registry)
    assert ours(read(body, WANTED)) == theirs(body.decode(), WANTED)


@given(registries(), st.sampled_from(["both", "metadata", "neither"]))
def test_reads_back_openmetrics_in_both_spellings(registry: CollectorRegistry, colons: str) -> None:
    body: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    names = (b"vllm:generation_tokens", b"vllm:num_requests_running", b"sglang:e2e_request_latency_seconds")
    for name in names:
        body = body.replace(name, name.replace(b":", b"_"))
    expected = theirs(body.decode(), WANTED, parse_openmetrics)  # it reads no page in two spellings
    for name in names:
        plain = name.replace(b":", b"_")
        if colons != "neither":
            body = body.replace(b"# TYPE " + plain, b"# TYPE " + name)
        if colons == "both":
            body = body.replace(b"\n" + plain, b"\n" + name)
    page = read(body, WANTED, OPENMETRICS)
    assert ours(page) == expected
    assert page.wrong == {}


blanks = st.sampled_from(["", " ", "\t", "  "])
written_values = st.sampled_from(["0", "1", "12.5", "1e3", "+4", "-2.", ".5", "1.79544422927e+09", "NaN", "+Inf", "-Inf", "inf", "nan"])
written_labels = st.lists(
    st.tuples(
        st.sampled_from(["model_name", "engine", "le", "_x"]),
        st.sampled_from(["", "a", "}", "{", "#", ",", "=", 'q\\"', "\\\\", "\\n", "ü", " "]),
    ),
    max_size=3,
    unique_by=lambda label: label[0],
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    """One line as loosely as the format allows it."""
    name = draw(st.sampled_from([*WANTED.types, "vllm:generation_tokens", "vllm:generation_tokens_total_sum", "other"]))
    labels = ",".join(f'{draw(blanks)}{k}{draw(blanks)}={draw(blanks)}"{v}"{draw(blanks)}' for k, v in draw(written_labels))
    comma = "," if labels and draw(st.booleans()) else ""
    block = f"{draw(blanks)}{{{labels}{comma}}}{draw(blanks)}" if labels or draw(st.booleans()) else " "
    stamp = draw(st.sampled_from(["", " 1700000000000", " -5"]))
    return f"{draw(blanks)}{name}{block}{draw(written_values)}{stamp}{draw(blanks)}\n"


@given(st.lists(lines(), min_size=1, max_size=5))
def test_reads_loosely_written_lines_as_prometheus_client_does(page: list[str]) -> None:
    text = "".join(page)
    expected = theirs(text, WANTED)
    if any(len(series) > len({labels for labels, _ in series}) for series in expected.values()):
        with pytest.raises(Unusable, match="twice"):  # prometheus_client leaves this to Prometheus, which refuses it
            read(text.encode(), WANTED)
    else:
        assert ours(read(text.encode(), WANTED)) == expected


@given(st.binary(max_size=200), st.integers(0, 8511), st.integers(0, 40))
def test_a_spoilt_page_is_refused_or_still_a_page(noise: bytes, at: int, cut: int) -> None:
    body = (PAGES / "vllm-0.16.0.trimmed.txt").read_bytes()
    spoilt = body[:at] + noise + body[at + cut :]
    with suppress(Unusable):
        assert set(read(spoilt, WANTED).samples) <= set(WANTED.types)


@pytest.mark.parametrize("name", ["sglang:x_total", "sglang_x_total"])
@pytest.mark.parametrize("asked", ["sglang:x_total", "sglang_x_total"])
def test_colons_and_underscores_are_one(name: str, asked: str) -> None:
    page = read(f"{name} 3\n".encode(), Wanted({asked: "counter"}))
    assert page.samples == {asked: [Sample((), 3.0)]}


def test_openmetrics_is_read_too() -> None:
    registry = CollectorRegistry()
    counter = Counter("vllm:generation_tokens", "", ["model_name"], registry=registry)
    counter.labels("tiny").inc(7, exemplar={"trace_id": "a # b"})
    body: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    assert b"# TYPE vllm:generation_tokens counter" in body or b"# TYPE vllm_generation_tokens counter" in body
    page = read(body, WANTED, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert page.samples == {GENERATION: [Sample((("model_name", "tiny"),), 7.0)]}
    assert page.types == {GENERATION: "counter"}


def test_timestamps_and_exemplars_are_not_values() -> None:
    page = read(b'vllm:generation_tokens_total{model_name="a"} 5 1700000000000\n', WANTED)
    assert only(page).value == 5
    page = read(b'vllm:generation_tokens_total{model_name="a"} 6 # {trace_id="x"} 1 1.5\n', WANTED)
    assert only(page).value == 6


def test_created_is_a_time_and_never_taken() -> None:
    body = (PAGES / "vllm-0.32.0.txt").read_bytes()
    assert b"vllm:generation_tokens_created" in body
    assert only(read(body, Wanted({GENERATION: "counter"}))).value == 200
    with pytest.raises(ValueError, match="is a time, no count"):
        Wanted({"vllm:generation_tokens_created": "counter"})


@pytest.mark.parametrize("type_", ["gauge", "histogram", "summary", "stateset"])
@pytest.mark.parametrize("declared", [GENERATION, "vllm:generation_tokens", "vllm_generation_tokens_total"])
def test_a_counter_that_the_page_calls_something_else_is_wrong(type_: str, declared: str) -> None:
    page = read(f"# TYPE {declared} {type_}\n{GENERATION} 5\n".encode(), WANTED)
    assert page.wrong == {GENERATION: f"{GENERATION} is a {type_} on this page, not a counter"}


def test_a_type_that_cannot_be_read_is_none_that_is_wanted() -> None:
    page = read(b"# TYPE vllm:generation_tokens_total\nvllm:generation_tokens_total 1\n", WANTED)
    assert page.wrong == {GENERATION: f"{GENERATION} is a metric without a type on this page, not a counter"}


@pytest.mark.parametrize(
    ("header", "wrong"),
    [
        ("# TYPE x histogram", False),
        ("# TYPE x summary", False),
        ("# TYPE x untyped", False),
        ("# TYPE x_sum counter", False),  # of a server that writes histograms as counters
        ("# HELP x something", False),
        ("# TYPE x counter", True),
        ("# TYPE x gauge", True),
        ("# TYPE x gaugehistogram", True),
        ("# TYPE x_sum gauge", True),
        ("# TYPE x_sum histogram", True),
    ],
)
def test_a_sum_is_that_of_a_histogram_or_an_error(header: str, wrong: bool) -> None:
    page = read(f"{header}\nx_sum 5\n".encode(), Wanted({"x_sum": "histogram"}))
    assert page.samples == {"x_sum": [Sample((), 5.0)]}
    assert set(page.wrong) == ({"x_sum"} if wrong else set())


def test_what_is_no_part_of_a_histogram_is_not_wanted_as_one() -> None:
    with pytest.raises(ValueError, match="no part of a histogram"):
        Wanted({"x_total": "histogram"})


@pytest.mark.parametrize("colon_first", [True, False])
def test_metadata_of_the_colon_twin_hold(colon_first: bool) -> None:
    headers = ["# TYPE vllm:generation_tokens counter\n", "# TYPE vllm_generation_tokens unknown\n"]
    text = "".join(headers if colon_first else headers[::-1]) + "vllm_generation_tokens_total 5\n"
    page = read(text.encode(), WANTED)
    assert page.types == {GENERATION: "counter"}
    assert read(text.replace("s counter", "s gauge").encode(), WANTED).wrong.keys() == {GENERATION}


def test_a_metric_in_two_spellings_is_not_counted_twice() -> None:
    with pytest.raises(Unusable, match="two spellings"):
        read(b'vllm:generation_tokens_total{a="1"} 5\nvllm_generation_tokens_total{b="2"} 5\n', WANTED)


def test_two_spellings_are_not_wanted_as_two_metrics() -> None:
    with pytest.raises(ValueError, match="two spellings of one metric"):
        Wanted({"a:x_total": "counter", "a_x_total": "gauge"})


def test_a_mark_is_there_or_not_whatever_it_is() -> None:
    names = Wanted({"up": "mark", "x_total": "counter"})
    for body in (b"up 1\n", b"# TYPE up histogram\nother 1\n", b"up{a=\"1\"} 1\nup{a=\"1\"} nonsense\nx_total 1\n"):
        page = read(body, names)
        assert page.has("up")
        assert page.wrong == {}
    assert not read(b"up_total 1\n", names).has("up")


def test_the_type_of_a_name_goes_before_that_of_its_twin_without_total() -> None:
    body = b"# TYPE x_total counter\nx_total 5\n# TYPE x gauge\nx 3\n"
    assert only(read(body, Wanted({"x_total": "counter"}))).value == 5


def test_untyped_is_taken_for_what_is_wanted() -> None:
    for header in (b"", b"# TYPE vllm:generation_tokens_total untyped\n", b"# TYPE vllm:generation_tokens_total unknown\n"):
        assert only(read(header + b"vllm:generation_tokens_total 5\n", WANTED)).value == 5


def test_a_declared_family_without_samples_is_there() -> None:
    page = read(b"# TYPE vllm:generation_tokens_total counter\n# TYPE other gauge\nother 1\n", WANTED)
    assert page.has(GENERATION)
    assert not page.has("vllm:prompt_tokens_total")
    assert page.samples == {}


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"", "text/plain", "empty"),
        (b"\n \n", "text/plain", "empty"),
        (b"<html></html>\n", "", "HTML"),
        (b"whatever\n", "text/html; charset=utf-8", "HTML"),
        (b'{"a": 1}\n', "", "JSON"),
        (b'"# HELP escaped\\n"', "text/plain", "JSON"),
        (b"[]", "Application/JSON", "JSON"),
        (b"Not Found\n", "text/plain", "not a page of metrics"),
        (b"vllm:generation_tokens_total 12", "text/plain", "cut off"),
        (b"vllm:generation_tokens_total 12\n", "application/openmetrics-text; version=1.0.0", "cut off"),
        (b"vllm:generation_tokens_total\n", "", "text format"),
        (b"vllm:generation_tokens_total 1_000\n", "", "text format"),
        (b"vllm:generation_tokens_total 0x10\n", "", "text format"),
        ("vllm:generation_tokens_total \u0661\n".encode(), "", "text format"),
        (b"vllm:generation_tokens_total 1 2 3\n", "", "text format"),
        (b'vllm:generation_tokens_total{a="b} 1\n', "", "text format"),
        (b'vllm:generation_tokens_total{a="b",a="c"} 1\n', "", "labels"),
        (b"vllm:generation_tokens_total{a=b} 1\n", "", "labels"),
        (b'vllm:generation_tokens_total{a="\xff"} 1\n', "", "UTF-8"),
        (b'vllm:generation_tokens_total{a="1",b="2"} 1\nvllm:generation_tokens_total{b="2",a="1"} 1\n', "", "twice"),
    ],
)
def test_what_is_no_page_is_refused_with_the_reason(body: bytes, content_type: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        read(body, WANTED, content_type)


def test_a_page_of_other_metrics_is_no_error() -> None:
    assert read(b"python_info 1\n", WANTED) == Page({}, {}, set(), {})


def test_hostile_lines_are_refused_in_linear_time() -> None:
    started = time.process_time()
    for body in (
        b"vllm:generation_tokens_total{" + b'a="b",' * 100_000 + b"\n",
        b"vllm:generation_tokens_total{" + b'"\\' * 300_000 + b"\n",
        b"vllm:generation_tokens_total " + b"1" * 500_000 + b"x\n",
        b"vllm:generation_tokens_total" + b" " * 500_000 + b"\n",
    ):
        with pytest.raises(Unusable):
            read(body, WANTED)
    assert time.process_time() - started < 5


def test_spoilt_pages_are_refused_or_read_as_prometheus_client_does() -> None:
    taken = [fuzz_page.check(seed) for seed in range(400)]
    assert 50 < sum(taken) < 350
