"""Servers that count what other servers count too: Dynamo's frontend and its workers, SGLang's router and its workers.

Of the two, the workers are read where one of them is on this host: theirs are the GPUs. Where all workers are elsewhere, the router is.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from tokenwatt.procfs import Process
from tokenwatt.types import ServerReading


class Part(NamedTuple):
    """What a server is among those that count the same."""

    software: str
    front: bool

    def worker(self) -> Self:
        """Its counterpart."""
        return self._replace(front=False)


def part_of(process: Process, reading: ServerReading) -> Part | None:
    """None: it counts for itself alone."""
    modules = {word for word in process.words if word.startswith("dynamo.")}
    if modules:  # python -m dynamo.frontend, dynamo.vllm, dynamo.sglang, dynamo.trtllm
        return Part("Dynamo", front="dynamo.frontend" in modules)
    if reading.engine == "sglang":
        # The router writes whose series each one is (sgl-model-gateway: src/core/metrics_aggregator.rs).
        return Part("SGLang", front=any("worker_addr" in key.labels for key in reading.counters))
    return None
