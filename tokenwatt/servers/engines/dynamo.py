"""NVIDIA Dynamo: its frontend, and its workers, which pass their engine's counters on.

Both count every token. Where both are on a node, only one of them may be read: the workers are those that hold the GPUs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenwatt.servers.engines.description import Engine, Gauge, Scheme, TokenCounter
from tokenwatt.servers.engines.sglang import SAME_WORK, SGLANG
from tokenwatt.servers.engines.trtllm import TRTLLM
from tokenwatt.servers.engines.vllm import VLLM

# Of prefill/decode workers the prefill one makes each answer's first token, and the decode one makes it again.
_NOT_OF_PREFILL: Final = ("dynamo_component", (("prefill", None),))


def _of_worker(scheme: Scheme) -> Scheme:
    """An engine's own scheme, on the page of a worker. Its labels are there, and dynamo's."""
    counters = tuple(
        replace(c, label=_NOT_OF_PREFILL[0], kinds=_NOT_OF_PREFILL[1]) if c.kind == "generation" and c.label is None else c
        for c in scheme.counters
    )
    return replace(scheme, counters=counters, needs=("dynamo_component_uptime_seconds",))


def _frontend(generation: TokenCounter, *, completion: bool) -> Scheme:
    return Scheme(
        # The prompt is counted at the first token.
        (TokenCounter("dynamo_frontend_input_sequence_tokens_sum", "prompt_computed", of="histogram"), generation),
        # Its cached_tokens histogram moves when the worker tells, which may be with the last chunk, or never: it cannot be taken off.
        cached="unknown",
        update="completion" if completion else "step",
        running=(Gauge("dynamo_frontend_inflight_requests"),),
        waiting=(Gauge("dynamo_frontend_queued_requests"),),
        latency="dynamo_frontend_request_duration_seconds" if completion else None,
        # A metric with labels is on the page from its first value on. This one has none.
        marks=("dynamo_frontend_disconnected_clients", "dynamo_frontend_inflight_requests", "dynamo_frontend_requests_total"),
        sparse=True,
    )


DYNAMO: Final = Engine(
    name="dynamo",
    schemes=(
        _frontend(TokenCounter("dynamo_frontend_output_tokens_total", "generation"), completion=False),
        _frontend(TokenCounter("dynamo_frontend_output_sequence_tokens_sum", "generation", of="histogram"), completion=True),
        *(_of_worker(scheme) for engine in (VLLM, SGLANG, TRTLLM) for scheme in engine.schemes),
    ),
    same_work=SAME_WORK,
    asleep_gauge=VLLM.asleep_gauge,
    no_counters="a worker needs DYN_SYSTEM_PORT, and its engine's metrics",
    source="1.6.1 and before: lib/llm/src/http/service/metrics.rs, dynamo/prometheus_names.py",
)
