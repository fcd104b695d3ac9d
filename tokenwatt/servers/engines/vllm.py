"""vLLM, and the engines that pass its counters on or copied them."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, Engine, Gauge, Scheme, TokenCounter


def schemes_like_vllm(prefix: str, *, marks: tuple[str, ...] = (), sparse: bool = False) -> tuple[Scheme, ...]:
    """vLLM's ways to count, under names that begin with ``prefix`` (``vllm:``)."""
    generation = TokenCounter(f"{prefix}generation_tokens_total", "generation")
    by_source = TokenCounter(
        f"{prefix}prompt_tokens_by_source_total", "prompt_cached", "source", (("local_compute", "prompt_computed"),)
    )

    def scheme(*prompt: TokenCounter, known: bool) -> Scheme:
        return Scheme(
            (*prompt, generation),
            cached="known" if known else "unknown",
            update="step",
            running=(Gauge(f"{prefix}num_requests_running"),),
            waiting=(Gauge(f"{prefix}num_requests_waiting"),),
            marks=marks,
            sparse=sparse,
        )

    return (
        # From 0.16 on: prompt tokens by where their KV came from. external_kv_transfer is another node's work.
        scheme(by_source, known=True),
        scheme(
            TokenCounter(f"{prefix}prompt_tokens_total", "prompt"),
            TokenCounter(f"{prefix}prompt_tokens_cached_total", "prompt_cached"),
            known=True,
        ),
        # Before 0.16 only prefix_cache_hits tells of the cache. It moves at admission, long before the prompt counter, and stays where the
        # request is aborted: it cannot be taken off.
        scheme(TokenCounter(f"{prefix}prompt_tokens_total", "prompt_computed"), known=False),
    )


VLLM: Final = Engine(
    # Prompt counters move at a request's first token, all at once; the generation counter at each engine step, by accepted tokens only. All
    # of them count a request once, preempted or not. LoRA requests count under the base model's name.
    name="vllm",
    schemes=schemes_like_vllm("vllm:"),
    # /metrics is a route that ignores the query. /metrics/ falls through to prometheus_client's own app, which honours name[]; with several
    # API servers (the default for data parallelism) it answers an empty page.
    filters=True,
    owned_by=("vllm",),
    version=(Answer("/version", ("version",)),),
    asleep_gauge=Gauge("vllm:engine_sleep_state", "sleep_state", ("weights_offloaded", "discard_all")),
    no_counters="was the server started with --disable-log-stats?",
    source="0.8.5, 0.11, 0.16, 0.32 and 0.33: vllm/v1/metrics/loggers.py",
)
