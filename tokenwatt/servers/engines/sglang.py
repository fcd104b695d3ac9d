"""SGLang: its realtime counters where it has them (from 0.5.8 on), else those that move when a request is done."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, Engine, Gauge, Scheme, TokenCounter

SAME_WORK: Final = ("tp_rank", "pp_rank", "moe_ep_rank")
"""Each pipeline stage counts the same tokens, and with --enable-metrics-for-all-schedulers each tensor rank too. dp_rank is other work."""

# With priority scheduling a gauge is there once in all (priority="") and once for each priority.
_RUNNING: Final = (Gauge("sglang:num_running_reqs", "priority", ("",)),)
_WAITING: Final = (Gauge("sglang:num_queue_reqs", "priority", ("",)),)

# Metrics come from several processes, and a family without a sample is not on the page at all: a fresh server shows gauges only.
_MARKS: Final = (
    "sglang:realtime_tokens_total",
    "sglang:prompt_tokens_total",
    "sglang:num_running_reqs",
    "sglang:num_queue_reqs",
    "sglang:token_usage",
    "sglang:page_size",
    "sglang:engine_startup_time",
    "sglang:engine_load_weights_time",
    "sglang:scheduler_idle_seconds_total",
)

REALTIME: Final = Scheme(
    (
        # decode is counted by decode batches: each request's first token comes of its prefill and is missing, and with the overlap
        # scheduler a request that ended by EOS is counted for one step too many. So decode is exact for requests ended by EOS, and one low
        # for those ended by length. With time_to_first_token_count added it would be one high for EOS, the usual end.
        # dp_cooperation_realtime_tokens_total repeats it. A mode not heard of yet may repeat one of these three: it counts nothing.
        # A decode node of a prefill/decode pair computes no prompts and shows none; a prefill node decodes nothing.
        TokenCounter(
            "sglang:realtime_tokens_total",
            None,
            "mode",
            (("prefill_compute", "prompt_computed"), ("prefill_cache", "prompt_cached"), ("decode", "generation")),
        ),
    ),
    cached="known",
    update="step",
    running=_RUNNING,
    waiting=_WAITING,
    marks=_MARKS,
    sparse=True,
)

CLASSIC: Final = Scheme(
    (
        # Of a prefill/decode pair both nodes count a whole request. The prompt is the prefill node's work, and so is what it took from its
        # cache; the answer is the decode node's, and the prefill node's one token of it is counted there again.
        TokenCounter("sglang:prompt_tokens_total", "prompt", "engine_type", (("decode", "prompt_cached"),)),
        TokenCounter("sglang:cached_tokens_total", "prompt_cached", "engine_type", (("decode", None),)),
        TokenCounter("sglang:generation_tokens_total", "generation", "engine_type", (("prefill", None),)),
    ),
    cached="known",
    update="completion",
    running=_RUNNING,
    waiting=_WAITING,
    latency="sglang:e2e_request_latency_seconds",
    marks=_MARKS,
    sparse=True,
)

SGLANG: Final = Engine(
    # The router (Model Gateway) shows the pages of all its workers at /engine_metrics, with underscores for colons and a label worker_addr.
    # Beside its own workers it would count all of them again: of what is found, the workers are read where they are on the node.
    name="sglang",
    schemes=(REALTIME, CLASSIC),
    metrics_paths=("/metrics", "/engine_metrics"),
    same_work=SAME_WORK,
    owned_by=("sglang",),
    # It asks each scheduler for its state between two batches, and the older path logs a warning: once a start, not more often.
    version=(Answer("/server_info", ("version",)), Answer("/get_server_info", ("version",))),
    never=(
        ("/health", "it generates a token, unless the server was told otherwise"),
        ("/health_generate", "it generates a token"),
        ("/flush_cache", "it drops the prefix cache, with GET too"),
    ),
    no_counters="start it, or the workers of the router, with --enable-metrics",
    source="0.5.6 to 0.5.23: observability/metrics_collector.py, scheduler_components/metrics_reporter.py, entrypoints/http_server.py",
)
