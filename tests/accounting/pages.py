"""Readings of one server for token counters alone: a page a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenwatt.accounting.folding import Page
from tokenwatt.accounting.token_counters import TokenCounters, TokenDeltas
from tokenwatt.types import SeriesKey, ServerReading

SECOND = 1_000_000_000
GENERATION = SeriesKey("m", "generation", "")


class Meterings:
    """Token counters, what they published so far, and the clock."""

    def __init__(self) -> None:
        self.counters = TokenCounters()
        self.published: dict[str, int] = {}
        self.t_ns = 10_000 * SECOND

    def read(
        self, page: Page | int, *, seconds: float = 1, started_since_ns: int | None = None, engine: str = "vllm", **of: Any
    ) -> TokenDeltas:
        """One page: its counters, or the value of the only one. Nothing published may ever fall."""
        self.t_ns += round(seconds * SECOND)
        counters = {GENERATION: page} if isinstance(page, int) else dict(page)
        deltas = self.counters.apply(ServerReading("s", self.t_ns, engine, counters, **of), started_since_ns=started_since_ns)
        assert all(count >= 0 for count in deltas.tokens.values())
        for (_, kind), count in deltas.tokens.items():
            if count:
                self.published[kind] = self.published.get(kind, 0) + count
        return deltas

    def read_all(self, pages: Iterable[Page | int], **of: Any) -> None:
        """Several pages, a second apart."""
        for page in pages:
            self.read(page, **of)

    @property
    def generation(self) -> int:
        return self.published.get("generation", 0)
