"""A server that tokenwatt does not know: its counters are named in the settings."""

from __future__ import annotations

import re
from typing import Final

from tokenwatt.servers.engines.description import Engine, Scheme, TokenCounter
from tokenwatt.types import SeriesKind

NAME: Final = "generic"

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def generic(*, prompt: str | None = None, prompt_cached: str | None = None, generation: str | None = None) -> Engine:
    """The engine that counts by these metrics. A name that ends with ``_sum`` is that of a histogram.

    Cached tokens are taken off the prompt's where both are named: whoever names them says that the two move together.

    Raises:
        ValueError: none is given, one is given twice, or one is no name.
    """
    kinds: list[tuple[str | None, SeriesKind]] = [
        (prompt, "prompt_computed" if prompt_cached is None else "prompt"),
        (prompt_cached, "prompt_cached"),
        (generation, "generation"),
    ]
    named = [(name, kind) for name, kind in kinds if name is not None]
    if not named:
        raise ValueError("engine generic has nothing to count: give it one of prompt, prompt_cached, generation")
    for name, _ in named:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a metric: give it as the page has it, without labels")
    if len({name.replace(":", "_") for name, _ in named}) < len(named):
        raise ValueError("engine generic counts the same metric twice")
    counters = tuple(TokenCounter(name, kind, of="histogram" if name.endswith("_sum") else "counter") for name, kind in named)
    return Engine(
        name=NAME,
        # Nobody tells when they move. At completion is what promises least.
        schemes=(Scheme(counters, cached="unknown" if prompt_cached is None else "known", update="completion"),),
        no_counters="are the names in the settings those of the page?",
    )
