"""Text Embeddings Inference."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, Engine, Gauge, Scheme, TokenCounter

TEI: Final = Engine(
    # It embeds and generates nothing. te_batch_next_tokens are the tokens of each batch when it is formed: what the GPU then computes.
    # te_request_input_length has the same tokens once more, earlier, and with them those of requests that fail before the GPU: never both,
    # and not in place of the first either, for the page shows a metric from its first value on, and that one is always there first.
    name="tei",
    schemes=(
        Scheme(
            (TokenCounter("te_batch_next_tokens_sum", "prompt_computed", of="histogram"),),
            cached="known",  # it has no prefix cache: every token is computed
            update="step",
            waiting=(Gauge("te_queue_size"),),
            marks=("te_batch_next_tokens_sum", "te_request_count", "te_embed_count", "te_predict_count", "te_queue_size"),
            sparse=True,
        ),
    ),
    identity=(Answer("/info", ("tokenization_workers",)),),
    version=(Answer("/info", ("version",)),),
    model=(Answer("/info", ("model_id",)),),
    never=(("/health", "may run a batch of its own on the GPU"),),
    no_counters="the router shows them at its own port and at --prometheus-port, from the first request on",
    source="1.8: core/src/queue.rs, core/src/infer.rs, core/src/tokenization.rs, router/src/prometheus.rs",
)
