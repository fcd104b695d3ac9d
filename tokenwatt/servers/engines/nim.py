"""NVIDIA NIM for large language models: vLLM, SGLang or TensorRT-LLM in NVIDIA's wrapping."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, Engine
from tokenwatt.servers.engines.sglang import SGLANG
from tokenwatt.servers.engines.vllm import VLLM, schemes_like_vllm

NIM: Final = Engine(
    # 1.x has vLLM's names without their prefix, whatever runs inside. Such names anybody could have: the gauges must be there too. From 2.x
    # on the engine's own names may be passed on; a page of those alone is taken for that engine, and NIM is known by its /v1/metadata. The
    # owner of its models says nothing: "system" in 1.x, the engine's own from 2.x on.
    name="nim",
    schemes=(
        *schemes_like_vllm("", marks=("num_requests_running", "num_requests_waiting")),
        *schemes_like_vllm("vllm:"),
        *SGLANG.schemes,
    ),
    metrics_paths=("/v1/metrics", "/metrics"),
    same_work=SGLANG.same_work,
    asleep_gauge=VLLM.asleep_gauge,
    identity=(Answer("/v1/metadata", ("modelInfo",)),),
    version=(Answer("/v1/version", ("release",)), Answer("/v1/metadata", ("version",))),
    no_counters="they are on by default: is the metrics port or path another one?",
    source="NVIDIA's documentation of NIM for LLMs 1.x, Observability (names and paths; the labels are not documented)",
)
