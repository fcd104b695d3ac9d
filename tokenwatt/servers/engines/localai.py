"""LocalAI."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Engine, Scheme, TokenCounter

LOCALAI: Final = Engine(
    # One counter, at a request's end, and only where the backend told the usage and a user is known: localai_usage_unrecorded_total counts
    # the requests it misses. It is labelled by user, who is nobody's business. Its only latency, api_call, has the quick calls
    # of the API in it as well. OpenTelemetry's exporter shows a counter from its first value on, and adds labels (otel_scope_name).
    name="localai",
    schemes=(
        Scheme(
            (TokenCounter("localai_tokens_total", None, "kind", (("prompt", "prompt_computed"), ("completion", "generation"))),),
            cached="unknown",
            update="completion",
            marks=("localai_tokens_total", "localai_billed_requests_total", "localai_usage_unrecorded_total"),
            sparse=True,
        ),
    ),
    private_labels=("user",),
    no_counters="they are there from the first request on, unless it was started with --disable-metrics-endpoint or --disable-stats",
    source="2026-11: core/services/routing/billing/prom.go, core/http/middleware/usage.go",
)
