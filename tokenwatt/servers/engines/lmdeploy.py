"""LMDeploy's api_server."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Engine, Gauge, Scheme, TokenCounter

LMDEPLOY: Final = Engine(
    # Generation moves at each output, the prompt at a request's first token, lmdeploy:cached_tokens_total at its end: it cannot be taken
    # off. lmdeploy:iteration_tokens_total is a histogram of steps, lmdeploy:request_prompt_tokens one of finished requests. Gauges are
    # refreshed every 10 s.
    name="lmdeploy",
    schemes=(
        Scheme(
            (
                TokenCounter("lmdeploy:prompt_tokens_total", "prompt_computed"),
                TokenCounter("lmdeploy:generation_tokens_total", "generation"),
            ),
            cached="unknown",
            update="step",
            running=(Gauge("lmdeploy:num_requests_running"),),
            waiting=(Gauge("lmdeploy:num_requests_waiting"),),
        ),
    ),
    owned_by=("lmdeploy",),
    no_counters="was the server started with --disable-metrics? Older releases want --enable-metrics",
    source="0.18: lmdeploy/metrics/loggers.py, lmdeploy/serve/openai/protocol.py",
)
