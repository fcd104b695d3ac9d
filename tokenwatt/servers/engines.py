"""Inference engines as data: one entry an engine, and nothing here that runs.

To add an engine: its entry, in ``ENGINES``, and a page that its real server gave, in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tokenwatt.types import Cached, SeriesKind, Update

MODEL_LABELS: Final = ("model_name", "model", "served_model", "name")
"""Where the model's name is, in order: the engine's own label, then those of servers that pass its metrics on (Triton says ``model``)."""

PROCESS_START: Final = "process_start_time_seconds"


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """One counter of tokens. Where a label tells kinds apart, ``kinds`` has its values, and ``kind`` is that of every other value."""

    name: str
    kind: SeriesKind
    label: str | None = None
    kinds: tuple[tuple[str, SeriesKind], ...] = ()

    def kind_of(self, labels: Mapping[str, str]) -> SeriesKind:
        """The kind of one of its series."""
        return self.kind if self.label is None else dict(self.kinds).get(labels.get(self.label, ""), self.kind)


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way an engine counts: counters that cover every token once, and whether cached prompt tokens are told apart."""

    counters: tuple[TokenCounter, ...]
    cached: Cached


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine. Metric names are exact: a pattern on "tokens" would take counters twice (twins by another label, subsets, rates)."""

    name: str
    metrics_path: str
    filters: bool
    """Whether ``metrics_path`` with a slash may answer to ``name[]``. Tried, checked, and left where it does not."""
    schemes: tuple[Scheme, ...]
    """The first whose counters are all on the page holds."""
    running: str
    waiting: str
    update: Update
    version_path: str
    no_counters: str
    """What to look at where the page has none of its counters."""

    def counters(self) -> dict[str, None]:
        """The names of all its token counters, in the order of the schemes."""
        return {c.name: None for s in self.schemes for c in s.counters}


_VLLM_GENERATION = TokenCounter("vllm:generation_tokens_total", "generation")

VLLM: Final = Engine(
    # Names read in 0.8.5, 0.11, 0.16, 0.32 and 0.33 (vllm/v1/metrics/loggers.py). Prompt counters move at a request's first token, all at
    # once; the generation counter at each engine step, by accepted tokens only. All of them count a request once, preempted or not.
    name="vllm",
    metrics_path="/metrics",
    # /metrics is a route that ignores the query. /metrics/ falls through to prometheus_client's own app, which honours name[]; with several
    # API servers (the default for data parallelism) it answers an empty page.
    filters=True,
    schemes=(
        # From 0.16 on: prompt tokens by where their KV came from. external_kv_transfer is another node's work.
        Scheme(
            (
                TokenCounter("vllm:prompt_tokens_by_source_total", "prompt_cached", "source", (("local_compute", "prompt_computed"),)),
                _VLLM_GENERATION,
            ),
            cached="known",
        ),
        Scheme(
            (
                TokenCounter("vllm:prompt_tokens_total", "prompt"),
                TokenCounter("vllm:prompt_tokens_cached_total", "prompt_cached"),
                _VLLM_GENERATION,
            ),
            cached="known",
        ),
        # Before 0.16 only prefix_cache_hits tells of the cache. It moves at admission, long before the prompt counter, and stays where the
        # request is aborted: it cannot be taken off.
        Scheme((TokenCounter("vllm:prompt_tokens_total", "prompt_computed"), _VLLM_GENERATION), cached="unknown"),
    ),
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    update="step",
    version_path="/version",
    no_counters="was the server started with --disable-log-stats?",
)

ENGINES: Final[Mapping[str, Engine]] = MappingProxyType({e.name: e for e in (VLLM,)})

METRICS_UNSAFE: Final[Mapping[str, str]] = MappingProxyType(
    # tensorrt_llm/serve/openai_protocol.py (ModelCard) and openai_server.py: GET /metrics pops the iteration statistics off a queue.
    {"tensorrt_llm": "it is a trtllm-serve, whose /metrics another reader may need: reading it empties it"}
)
"""Servers whose ``/metrics`` is not to be tried, by what their ``/v1/models`` says they are."""
