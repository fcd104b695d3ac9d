"""Xinference: the metrics exporter of a worker. The supervisor's page has no tokens."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Engine, Gauge, Scheme, TokenCounter

XINFERENCE: Final = Engine(
    # Both move when a request ends. Their names end in _counter: aioprometheus adds nothing. xinference:generate_tokens_total repeats the
    # output, and a model run by its vLLM shows vllm:* as well: never taken. The cache is not told. Replicas of a model are summed.
    name="xinference",
    schemes=(
        Scheme(
            (
                TokenCounter("xinference:input_tokens_total_counter", "prompt_computed"),
                TokenCounter("xinference:output_tokens_total_counter", "generation"),
            ),
            cached="unknown",
            update="completion",
            running=(Gauge("xinference:model_serve_count"),),
            latency="xinference:model_request_duration_seconds",
        ),
    ),
    owned_by=("xinference",),
    no_counters="they are on the worker's exporter: start it with --metrics-exporter-port PORT, else its port is another one each time",
    source="4.1: xinference/core/metrics.py, xinference/core/model.py",
)
