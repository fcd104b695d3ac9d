"""llama.cpp's llama-server."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, Engine, Gauge, InFlight, Scheme, TokenCounter

# Only tokens that were computed: those from the cache have a counter of their own, in builds from August 2026 on (commit decaf508b).
_PROMPT: Final = TokenCounter("llamacpp:prompt_tokens_total", "prompt_computed")
_CACHED: Final = TokenCounter("llamacpp:prompt_tokens_cached_total", "prompt_cached")
# Moves when a slot is released: at the end of an answer, stopped or aborted. n_tokens_max is typed counter and is a high-water mark; the
# *_tokens_seconds are means since the last scrape.
_PREDICTED: Final = TokenCounter("llamacpp:tokens_predicted_total", "generation")

_RUNNING: Final = (Gauge("llamacpp:requests_processing"),)
_WAITING: Final = (Gauge("llamacpp:requests_deferred"),)

LLAMACPP: Final = Engine(
    # A router (several models) has no counters of its own: it answers for the child that ?model= names, and loads it first unless
    # autoload=false. See tokenwatt.servers.router.
    name="llamacpp",
    schemes=(
        Scheme((_PROMPT, _CACHED, _PREDICTED), cached="known", update="completion", running=_RUNNING, waiting=_WAITING),
        Scheme((_PROMPT, _PREDICTED), cached="unknown", update="completion", running=_RUNNING, waiting=_WAITING),
    ),
    owned_by=("llamacpp",),
    identity=(Answer("/props", ("default_generation_settings",)),),
    version=(Answer("/props", ("build_info",)),),
    # Builds to b9760 and some later ones wake a sleeping model for /metrics. /props is answered without a task, and wakes none.
    asleep=(Answer("/props", ("is_sleeping",)),),
    # It would wake a sleeping model, but none sleeps while requests run. next_token is a list in new builds, of one entry.
    in_flight=InFlight("/slots", "is_processing", (("next_token", "n_decoded"),)),
    never=(
        *((f"{path}?model=&autoload!=false", "in router mode it loads the model") for path in ("/metrics", "/props", "/slots")),
        ("/models/load", "it loads a model"),
        ("/models/unload", "it unloads a model"),
    ),
    no_counters="start it with --metrics",
    source="b4500 to b9760 and 2026-11: tools/server/server-context.cpp, server-task.cpp, server-models.cpp",
)
