"""Text Generation Inference."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, Engine, Gauge, Scheme, TokenCounter

TGI: Final = Engine(
    # It has no token counters: the sums of two histograms are them. A prompt is counted when it is validated, before it waits, and also
    # where the request fails later; an answer when it is complete, and only where it succeeds. tgi_request_skipped_tokens are tokens
    # speculated, tgi_batch_next_tokens and tgi_batch_current_max_tokens are budgets. What its prefix cache saved is not told.
    name="tgi",
    schemes=(
        Scheme(
            (
                TokenCounter("tgi_request_input_length_sum", "prompt_computed", of="histogram"),
                TokenCounter("tgi_request_generated_tokens_sum", "generation", of="histogram"),
            ),
            cached="unknown",
            update="completion",
            running=(Gauge("tgi_batch_current_size"),),
            waiting=(Gauge("tgi_queue_size"),),
            latency="tgi_request_duration",  # in seconds, in spite of its name
            # The page shows a metric from its first value on. Counters of Rust's exporter have no _total.
            marks=("tgi_request_count", "tgi_request_input_length_sum", "tgi_queue_size", "tgi_batch_current_size"),
            sparse=True,
        ),
    ),
    # Only the router's answer has this one; TEI's, at the same path, has tokenization_workers.
    identity=(Answer("/info", ("validation_workers",)),),
    version=(Answer("/info", ("version",)),),
    model=(Answer("/info", ("model_id",)),),
    never=(("/health", "may run a prefill of its own on the GPU"),),
    no_counters="the router shows them at its own port and at --prometheus-port, from the first request on",
    source="3.3 (db931fcf): router/src/server.rs, router/src/validation.rs, backends/v3/src/backend.rs",
)
