"""Aphrodite, which counts like the vLLM it was made from."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, Engine
from tokenwatt.servers.engines.vllm import schemes_like_vllm

APHRODITE: Final = Engine(
    name="aphrodite",
    schemes=schemes_like_vllm("aphrodite:"),
    owned_by=("aphrodite", "pygmalionai"),  # now, and before
    version=(Answer("/version", ("version",)),),
    no_counters="was the server started with --disable-log-stats?",
    source="0.24.1: aphrodite/v1/metrics/loggers.py, aphrodite/entrypoints/openai/engine/protocol.py",
)
