"""Triton, with the vLLM backend or the TensorRT-LLM backend. Both name the model in ``model``."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Engine, Gauge, Scheme, TokenCounter
from tokenwatt.servers.engines.vllm import schemes_like_vllm

# Triton counts the requests of each model it has loaded, whatever the backend.
_MARK: Final = "nv_inference_request_success"


def _length(of: str) -> TokenCounter:
    """The sum of a histogram that a request is put into at its last response."""
    return TokenCounter(
        f"nv_llm_{of}_token_len_sum",
        None,
        "response_metric_type",
        ((f"total_{of}_tokens", "prompt_computed" if of == "input" else "generation"),),
        of="histogram",
    )


_TENSORRT_LLM: Final = Scheme(
    (_length("input"), _length("output")),
    # Of the cache it shows gauges only.
    cached="unknown",
    update="completion",
    running=(Gauge("nv_trt_llm_request_metrics", "request_type", ("active",)),),
    waiting=(Gauge("nv_trt_llm_request_metrics", "request_type", ("waiting",)),),
)

TRITON: Final = Engine(
    name="triton",
    schemes=(*schemes_like_vllm("vllm:", marks=(_MARK,)), _TENSORRT_LLM),
    # Of its OpenAI frontend. The port of its metrics (8002) answers nothing else.
    owned_by=("Triton Inference Server",),
    no_counters="with the vLLM backend, set REPORT_CUSTOM_METRICS to true in the parameters of config.pbtxt",
    source="vllm_backend at 8de0c148: src/utils/metrics.py; TensorRT-LLM at 0d5352f5: custom_metrics_reporter.cc; server: openai_frontend",
)
