"""Ray Serve LLM: vLLM's counters by way of Ray's node agent."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Engine
from tokenwatt.servers.engines.vllm import schemes_like_vllm

RAY: Final = Engine(
    # Ray writes ":" as "_" and puts "ray_" before. Each counter is there a second time, as a gauge without _total: never taken. One page
    # has all replicas and workers of the node (labels ReplicaId and WorkerId: summed); those of one that ended stay until they expire.
    name="ray",
    schemes=schemes_like_vllm("ray_vllm_"),
    no_counters="log_engine_metrics must not be off, and the page is the node agent's: ray start --metrics-export-port PORT",
    source="2.60: python/ray/_private/metrics_agent.py; the names are those of vLLM",
)
