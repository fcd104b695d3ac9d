"""mistral.rs."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Engine, Gauge, Scheme, TokenCounter

_PREFILL: Final = "mistralrs_prefill_tokens_processed_total"
_DECODE: Final = "mistralrs_decode_tokens_processed_total"
_BOTH: Final = "mistralrs_tokens_processed_total"
_RUNNING: Final = (Gauge("mistralrs_sequences_running"),)
_WAITING: Final = (Gauge("mistralrs_sequences_waiting"),)

MISTRALRS: Final = Engine(
    # Tokens that went through the pipeline, at each step. The first token of an answer comes out of the prompt's last step and is in no
    # counter: one less a request. Whether a prompt found in the prefix cache is in them depends on the scheduler: not known.
    name="mistralrs",
    schemes=(
        # Newer builds tell prompt from generation. The page shows a metric from its first value on.
        Scheme(
            (TokenCounter(_PREFILL, "prompt_computed"), TokenCounter(_DECODE, "generation")),
            cached="unknown",
            update="step",
            running=_RUNNING,
            waiting=_WAITING,
            marks=(_PREFILL, _DECODE),
            sparse=True,
        ),
        # All builds have the sum. Where its parts are there too, they repeat it, and the first prompt must not settle on the sum.
        Scheme(
            (TokenCounter(_BOTH, "unsplit"), TokenCounter(_PREFILL, None), TokenCounter(_DECODE, None)),
            cached="unknown",
            update="step",
            running=_RUNNING,
            waiting=_WAITING,
            marks=(_BOTH, "mistralrs_sequences_running", "mistralrs_sequences_waiting"),
            sparse=True,
        ),
    ),
    no_counters="was the server started with --disable-metrics?",
    source="0aba1da1: mistralrs-core/src/engine/logger.rs, mistralrs-core/src/engine/mod.rs, mistralrs-server-core/src/metrics.rs",
)
