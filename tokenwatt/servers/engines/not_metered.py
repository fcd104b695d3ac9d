"""Servers that are known and have no counters of tokens that could be trusted."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.engines.description import Answer, NotMetered

_INSTEAD: Final = "Send its requests through `tokenwatt proxy --upstream URL`, or report its tokens to POST /api/v1/tokens"
_BEHIND_IT: Final = "which computes nothing itself: the servers behind it are metered where they run, and here they would count twice"

NOT_METERED: Final = (
    NotMetered(
        name="Ollama",
        because=(
            f"it has no metrics. {_INSTEAD}. From 0.30.6 on it runs each model in a llama-server, which may be metered by itself where"
            " Ollama is started with LLAMA_ARG_ENDPOINT_METRICS=1 (untested)"
        ),
        owned_by=("library",),
        # LocalAI and others answer here as well, for Ollama's clients: their counters tell them from it.
        identity=(Answer("/api/version", ("version",)),),
    ),
    NotMetered(
        name="LM Studio",
        because=f"it has no metrics. {_INSTEAD}",
        owned_by=("organization_owner", "organization-owner"),
    ),
    NotMetered(
        # cpp/serve/metrics.cc: lines with tabs, labels without quotes, no types. And of several engines only the first one's.
        name="MLC-LLM",
        because=f"its metrics are not in the Prometheus format, and of several engines it shows one. {_INSTEAD}",
        owned_by=("MLC-LLM",),
        page=("prompt_tokens_sum\t", "prefill_tokens_sum\t", "decode_tokens_sum\t"),
    ),
    NotMetered(
        name="KoboldCpp",
        because=f"it has no token counters. {_INSTEAD}",
        owned_by=("koboldcpp",),
    ),
    NotMetered(
        name="TabbyAPI",
        because=f"it has no metrics. {_INSTEAD}",
        owned_by=("tabbyAPI",),
    ),
    NotMetered(
        # Several workers that answer in turn, each with counters of its own, are one more reason (BerriAI/litellm#10595).
        name="LiteLLM",
        because=f"it is a proxy, {_BEHIND_IT}",
        identity=(Answer("/health/readiness", ("litellm_version",)),),
        page=("litellm_",),
    ),
    NotMetered(
        name="Envoy AI Gateway",
        because=f"it is a gateway, {_BEHIND_IT}",
        page=("gen_ai_client_token_usage_", "gen_ai_server_request_duration_"),
    ),
    NotMetered(
        name="llm-d's endpoint picker",
        because=f"it is a scheduler, {_BEHIND_IT}",
        page=("inference_objective_", "inference_pool_", "llm_d_epp_"),
    ),
)
