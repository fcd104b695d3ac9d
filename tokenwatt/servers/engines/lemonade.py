"""Lemonade: one server for several backends, mostly llama.cpp."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, Engine, Gauge, Scheme, TokenCounter

_CLOUD: Final = ("cloud", None)
"""Recipe of models that run at a provider: their tokens cost no energy here."""

_INPUT: Final = TokenCounter("lemonade_model_input_tokens_total", "prompt_computed", "recipe", (_CLOUD,))
_OUTPUT: Final = TokenCounter("lemonade_model_output_tokens_total", "generation", "recipe", (_CLOUD,))
# Of requests at the llama-servers behind it, which it asks at each scrape.
_RUNNING: Final = (Gauge("lemonade_llamacpp_requests_processing"),)
_WAITING: Final = (Gauge("lemonade_llamacpp_requests_deferred"),)

LEMONADE: Final = Engine(
    # All move when a request ends. input_tokens are what llama.cpp computed, cache_tokens what it had already. prompt_tokens have both, but
    # only where the client asked for usage: cached tokens cannot be taken off them. Other backends tell all of the prompt as input_tokens:
    # their cache_tokens are a part of it. Traps: the same names without _total (the last request's), without model_ (all models again), and
    # lemonade_llamacpp_* (the backend's own counters). A model's counters start again when it is loaded again.
    name="lemonade",
    schemes=(
        Scheme(
            (_INPUT, TokenCounter("lemonade_model_cache_tokens_total", None, "recipe", (("llamacpp", "prompt_cached"),)), _OUTPUT),
            cached="known",
            update="completion",
            running=_RUNNING,
            waiting=_WAITING,
        ),
        # Before it told of the cache.
        Scheme((_INPUT, _OUTPUT), cached="unknown", update="completion", running=_RUNNING, waiting=_WAITING),
    ),
    owned_by=("lemonade",),
    version=(Answer("/api/v1/health", ("version",)),),
    no_counters="its older releases have none: upgrade",
    source="1b2f0aef: src/cpp/server/prometheus_metrics.cpp, src/cpp/server/streaming_proxy.cpp",
)
