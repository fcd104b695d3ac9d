"""TensorRT-LLM's own server, trtllm-serve. (Under Triton it is another engine.)"""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, Engine, Gauge, Scheme, TokenCounter

_RUNNING: Final = (Gauge("trtllm_num_requests_running"),)
_WAITING: Final = (Gauge("trtllm_num_requests_waiting"),)
_LATENCY: Final = "trtllm_e2e_request_latency_seconds"
_GENERATION: Final = TokenCounter("trtllm_generation_tokens_total", "generation")

TRTLLM: Final = Engine(
    # All three counters move in one call at a request's end, and only where it did not fail: cached tokens can be taken off.
    # trtllm_prompt_cache_hit_tokens_total repeats the cached ones by cache level, at each step. trtllm_total_context_tokens is a gauge of
    # one step. The gauges of requests are refreshed when a request ends: they may be old.
    name="trtllm",
    schemes=(
        Scheme(
            (
                TokenCounter("trtllm_prompt_tokens_total", "prompt"),
                TokenCounter("trtllm_prompt_cached_tokens_total", "prompt_cached"),
                _GENERATION,
            ),
            cached="known",
            update="completion",
            running=_RUNNING,
            waiting=_WAITING,
            latency=_LATENCY,
        ),
        # Builds on the way to 1.3 had two counters first.
        Scheme(
            (TokenCounter("trtllm_prompt_tokens_total", "prompt_computed"), _GENERATION),
            cached="unknown",
            update="completion",
            running=_RUNNING,
            waiting=_WAITING,
            latency=_LATENCY,
        ),
    ),
    metrics_paths=("/prometheus/metrics",),
    owned_by=("tensorrt_llm",),
    version=(Answer("/version", ("version",)),),
    never=(
        ("/metrics", "hands out JSON of each step and forgets it: whoever else reads it loses it"),
        ("/perf_metrics", "hands out the figures of requests and forgets them"),
        ("/kv_cache_events", "hands out events and forgets them"),
    ),
    no_counters="1.2 and before have none: upgrade; from 1.3 on set return_perf_metrics: true in its options",
    source="1.3 (050f80de): tensorrt_llm/metrics/collector.py, tensorrt_llm/serve/openai_server.py",
)
