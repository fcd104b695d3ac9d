"""A vLLM's /metrics page in the text format, as prometheus_client writes it: whole, or the samples that were asked for.

Names, labels and order are those of vLLM 0.33 with its Python front end (all families that a meter could want or mistake for one), with
``_created`` lines and 16 histograms, so that a scraper has to find its few counters in 50 kB. Counters and gauges tell the load. Histograms
have its counts, spread exponentially over the buckets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from tokenwatt.demo.profiles import Profile
from tokenwatt.demo.vllm import Vitals

_Value = Callable[[Vitals], float]
_Samples = tuple[tuple[str, str, _Value], ...]
"""(name, labels as written, value) each."""

_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_BATCH = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560)
_BETWEEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_REQUEST_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)


@dataclass(frozen=True, slots=True)
class _Family:
    """One family. ``created`` are its ``_created`` samples, which the text format shows as a gauge of their own."""

    name: str
    type: str
    help: str
    samples: _Samples
    created: _Samples = ()

    def render(self, vitals: Vitals, names: Collection[str] | None) -> Iterator[str]:
        """Its lines. With ``names`` only samples of these names, and no line where there is none: as prometheus_client restricts."""
        samples, created = ([s for s in part if names is None or s[0] in names] for part in (self.samples, self.created))
        if samples or created:
            yield f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.type}\n"
            yield from (f"{name}{labels} {number(value(vitals))}\n" for name, labels, value in samples)
        if created:
            yield f"# HELP {created[0][0]} {self.help}\n# TYPE {created[0][0]} gauge\n"
            yield from (f"{name}{labels} {number(value(vitals))}\n" for name, labels, value in created)


def number(value: float) -> str:
    """A value as Go's strconv writes it, and prometheus_client after it: with an exponent from 10^6 on."""
    text = repr(float(value))
    dot = text.find(".")
    if dot <= 6:
        return text
    digits = (text[1:dot] + text[dot + 1 :]).rstrip("0")
    return f"{text[0]}{'.' + digits if digits else ''}e+{dot - 1:02d}"


def _created(vitals: Vitals) -> float:
    return vitals.start_wall_s + 58.7  # metrics are made once the engine is up


def _nothing(vitals: Vitals) -> float:
    return 0.0


def _one(vitals: Vitals) -> float:
    return 1.0


def _scaled(value: _Value, factor: float) -> _Value:
    return lambda v: value(v) * factor


def _bucket(count: _Value, share: float) -> _Value:
    return lambda v: float(int(count(v) * share))


def _computed(v: Vitals) -> float:
    return v.counted.prompt_computed


def _cached(v: Vitals) -> float:
    return v.counted.prompt_cached


def _prompt(v: Vitals) -> float:
    return v.counted.prompt_computed + v.counted.prompt_cached


def _generation(v: Vitals) -> float:
    return v.counted.generation


def _started(v: Vitals) -> float:
    return v.counted.started


def _finished(v: Vitals) -> float:
    return v.counted.finished


@dataclass(slots=True)
class _Writer:
    """Collects the families of one server's page."""

    labels: dict[str, str]
    families: list[_Family] = field(default_factory=list)

    def plain(self, name: str, type_: str, help_: str, value: _Value, **labels: str) -> None:
        """A process-wide family of one sample: no model label, no `_created`."""
        self.families.append(_Family(name, type_, help_, ((name, _labels(labels), value),)))

    def gauge(self, name: str, help_: str, value: _Value) -> None:
        self.families.append(_Family(name, "gauge", help_, ((name, _labels(self.labels), value),)))

    def gauges(self, name: str, help_: str, label: str, values: Mapping[str, _Value]) -> None:
        self.families.append(_Family(name, "gauge", help_, self._by(name, label, values)))

    def counter(self, base: str, help_: str, value: _Value) -> None:
        self._counter(base, help_, ((base + "_total", _labels(self.labels), value),))

    def counters(self, base: str, help_: str, label: str, values: Mapping[str, _Value]) -> None:
        self._counter(base, help_, self._by(base + "_total", label, values))

    def _counter(self, base: str, help_: str, samples: _Samples) -> None:
        created = tuple((base + "_created", labels, _created) for _, labels, _ in samples)
        self.families.append(_Family(base + "_total", "counter", help_, samples, created))

    def histogram(self, name: str, help_: str, bounds: tuple[float, ...], count: _Value, mean: float, total: _Value | None = None) -> None:
        """``mean`` spreads the count over the buckets. ``total`` is the sum; None: count x mean."""
        shares = [(number(b), 1 - math.exp(-b / mean)) for b in bounds] + [("+Inf", 1.0)]
        samples = [(name + "_bucket", _labels({**self.labels, "le": le}), _bucket(count, share)) for le, share in shares]
        labels = _labels(self.labels)
        samples += [(name + "_count", labels, count), (name + "_sum", labels, total or _scaled(count, mean))]
        self.families.append(_Family(name, "histogram", help_, tuple(samples), ((name + "_created", labels, _created),)))

    def _by(self, name: str, label: str, values: Mapping[str, _Value]) -> _Samples:
        return tuple((name, _labels({**self.labels, label: key}), value) for key, value in values.items())


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "}" if labels else ""


def _process(w: _Writer) -> None:
    version = {"implementation": "CPython", "major": "3", "minor": "12", "patchlevel": "3", "version": "3.12.3"}
    w.plain("python_info", "gauge", "Python platform information", _one, **version)
    w.plain("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", lambda v: 2.203664384e10)
    w.plain("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", lambda v: 2.62523168e9)
    w.plain(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        lambda v: round(v.start_wall_s, 2),  # from /proc/PID/stat, in ticks of 10 ms
    )
    w.plain("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", lambda v: round(0.4 * v.age_s, 2))
    w.plain("process_open_fds", "gauge", "Number of open file descriptors.", lambda v: 61.0)
    w.plain("process_max_fds", "gauge", "Maximum number of open file descriptors.", lambda v: 65536.0)


def _gauges(w: _Writer, profile: Profile) -> None:
    w.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", lambda v: v.counted.running)
    w.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", lambda v: v.counted.waiting)
    reasons: Mapping[str, _Value] = {"capacity": lambda v: v.counted.waiting, "deferred": _nothing}
    w.gauges("vllm:num_requests_waiting_by_reason", "Number of waiting requests by reason.", "reason", reasons)
    states: Mapping[str, _Value] = {"awake": _one, "weights_offloaded": _nothing, "discard_all": _nothing}
    w.gauges("vllm:engine_sleep_state", "Engine sleep state; awake = 1 means engine is awake.", "sleep_state", states)
    usage = 0.9 / profile.max_running
    w.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", lambda v: v.counted.running * usage)


def _counters(w: _Writer) -> None:
    tokens = ", in terms of number of {}."
    w.counter("vllm:prefix_cache_queries", "Prefix cache queries" + tokens.format("queried tokens"), _prompt)
    w.counter("vllm:prefix_cache_hits", "Prefix cache hits" + tokens.format("cached tokens"), _cached)
    external = " from KV connector cross-instance cache sharing" + tokens
    w.counter("vllm:external_prefix_cache_queries", "External prefix cache queries" + external.format("queried tokens"), _nothing)
    w.counter("vllm:external_prefix_cache_hits", "External prefix cache hits" + external.format("cached tokens"), _nothing)
    w.counter("vllm:mm_cache_queries", "Multi-modal cache queries" + tokens.format("queried items"), _nothing)
    w.counter("vllm:mm_cache_hits", "Multi-modal cache hits" + tokens.format("cached items"), _nothing)
    w.counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.", _nothing)
    w.counter("vllm:prompt_tokens", "Number of prefill tokens processed.", _prompt)
    sources = {"local_compute": _computed, "local_cache_hit": _cached, "external_kv_transfer": _nothing}
    w.counters("vllm:prompt_tokens_by_source", "Number of prompt tokens by source.", "source", sources)
    w.counter("vllm:prompt_tokens_cached", "Number of cached prompt tokens (local + external).", _cached)
    tiers = {"device": _cached, "host": _nothing, "p2p": _nothing, "disk": _nothing, "external_unspecified": _nothing}
    tiers_help = "Prefix-cache hit tokens by the cache tier that supplied them. Counted at admission."
    w.counters("vllm:prompt_tokens_cached_by_source", tiers_help, "source", tiers)
    w.counter("vllm:generation_tokens", "Number of generation tokens processed.", _generation)
    ends = {"stop": _finished, "length": _nothing, "abort": _nothing, "error": _nothing, "repetition": _nothing}
    w.counters("vllm:request_success", "Count of successfully processed requests.", "finished_reason", ends)


def _histograms(w: _Writer, p: Profile) -> None:
    computed_mean = p.prompt_tokens * (1 - 0.6 * p.hit_permille / 1000)
    token_s = p.step_base_ns / 1e9 * 2
    answer_s = p.output_tokens * token_s

    def iteration_tokens(v: Vitals) -> float:
        return v.counted.prompt_computed + v.counted.generation

    w.histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", _TOKENS, _finished, p.prompt_tokens)
    w.histogram("vllm:request_generation_tokens", "Number of generation tokens processed.", _TOKENS, _finished, p.output_tokens)
    # A histogram, whatever its name says.
    help_ = "Histogram of number of tokens per engine_step."
    w.histogram("vllm:iteration_tokens_total", help_, _BATCH, lambda v: v.counted.engine_steps, 64.0, iteration_tokens)
    help_ = "Histogram of maximum number of requested generation tokens."
    w.histogram("vllm:request_max_num_generation_tokens", help_, _TOKENS, _finished, p.output_tokens)
    w.histogram("vllm:request_params_n", "Histogram of the n request parameter.", (1, 2, 5, 10, 20), _finished, 0.01, _finished)
    w.histogram("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", _TOKENS, _finished, 1024.0)
    help_ = "Histogram of time to first token in seconds."
    w.histogram("vllm:time_to_first_token_seconds", help_, _FIRST_TOKEN_S, _started, 0.12)
    w.histogram("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _BETWEEN_S, _generation, token_s)
    help_ = "Histogram of time_per_output_token_seconds per request."
    w.histogram("vllm:request_time_per_output_token_seconds", help_, _BETWEEN_S, _finished, token_s)
    for name, what, mean in (
        ("e2e_request_latency", "e2e request latency", answer_s + 0.15),
        ("request_queue_time", "time spent in WAITING phase for request", 0.03),
        ("request_inference_time", "time spent in RUNNING phase for request", answer_s + 0.12),
        ("request_prefill_time", "time spent in PREFILL phase for request", 0.12),
        ("request_decode_time", "time spent in DECODE phase for request", answer_s),
    ):
        help_ = f"Histogram of {what}" + (" in seconds." if name == "e2e_request_latency" else ".")
        w.histogram(f"vllm:{name}_seconds", help_, _REQUEST_S, _finished, mean)
    help_ = "Histogram of the number of times a request was preempted."
    w.histogram("vllm:request_num_preemptions", help_, (1, 2, 3, 4, 5, 10, 20), _finished, 0.01, _nothing)
    help_ = "Histogram of new KV tokens computed during prefill (excluding cached tokens)."
    w.histogram("vllm:request_prefill_kv_computed_tokens", help_, _TOKENS, _finished, computed_mean)


def _families(profile: Profile) -> list[_Family]:
    w = _Writer({"engine": "0", "model_name": profile.model})
    _process(w)
    _gauges(w, profile)
    _counters(w)
    _histograms(w, profile)
    config = {"block_size": "16", "cache_dtype": "auto", "enable_prefix_caching": "True", "gpu_memory_utilization": "0.92"}
    w.plain("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig", _one, engine="0", **config)
    handler = {"handler": "/v1/chat/completions", "method": "POST", "status": "2xx"}
    help_ = "Total number of requests by method, status and handler."
    w.plain("http_requests_total", "counter", help_, _finished, **handler)
    return w.families


class Page:
    """The /metrics page of one server."""

    def __init__(self, profile: Profile) -> None:
        self._families = _families(profile)
        self._by_sample: dict[str, _Family] = {}
        for family in self._families:
            self._by_sample.update((name, family) for name, _, _ in (*family.samples, *family.created))

    def render(self, vitals: Vitals, names: Collection[str] | None = None) -> bytes:
        """The page; with ``names`` only the samples that have one of these names."""
        if names is None:
            families = self._families
        else:
            wanted = {id(f): f for n in names if (f := self._by_sample.get(n)) is not None}
            families = list(wanted.values())
        return "".join(line for family in families for line in family.render(vitals, names)).encode()
