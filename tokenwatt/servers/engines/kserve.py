"""KServe's runtime for Hugging Face models, which runs vLLM inside."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Engine
from tokenwatt.servers.engines.vllm import VLLM, schemes_like_vllm

KSERVE: Final = Engine(
    # vLLM's metrics and its own in one registry. The histogram of its own tells it from plain vLLM: it is declared from the start, and has
    # values from the first request on.
    name="kserve",
    schemes=schemes_like_vllm("vllm:", marks=("request_predict_seconds",)),
    asleep_gauge=VLLM.asleep_gauge,
    no_counters="only its vLLM backend counts tokens: --backend=vllm",
    source="0.21: python/kserve/kserve/metrics.py, python/huggingfaceserver; the names are those of vLLM",
)
