"""Tokens that are not reported yet: one sum for each model and kind, however long the meter is away."""

from __future__ import annotations

import datetime
from typing import Final

from tokenwatt.proxy.usage import Usage
from tokenwatt.types import Kind

_MODELS_LIMIT: Final = 64
"""A server that makes up a new name for each answer does not fill the memory: names beyond are booked under none. The meter takes 100."""


class Sum:
    """Tokens, and the wall times of their first and last byte."""

    def __init__(self, at_s: float) -> None:
        self.count = 0
        self.from_s = self.to_s = at_s

    def add(self, count: int, from_s: float, to_s: float) -> None:
        """One answer more."""
        self.count += count
        self.from_s = min(self.from_s, from_s)
        self.to_s = max(self.to_s, to_s, from_s)  # the clock may be set back while a request runs

    def span(self) -> dict[str, str]:
        """As a report writes it: from, to."""
        return {"from": _rfc3339(self.from_s), "to": _rfc3339(self.to_s)}


class Sums:
    """By model and kind."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, Kind], Sum] = {}
        self._models: set[str] = set()
        self.last_model: str | None = None
        """Of the last answer; None before the first."""

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, usage: Usage, from_s: float, to_s: float) -> None:
        """One answer's tokens."""
        known = usage.model in self._models or len(self._models) < _MODELS_LIMIT
        model = usage.model if known else ""
        self._models.add(model)
        self.last_model = model
        for kind, count in usage.tokens().items():
            # A zero is told where it says something: that there is a cache, that there is such a model.
            self._sums.setdefault((model, kind), Sum(from_s)).add(count, from_s, to_s)

    def take(self) -> dict[tuple[str, Kind], Sum]:
        """All of it, and begin anew."""
        taken, self._sums = self._sums, {}
        return taken

    def total(self) -> int:
        """Tokens of all kinds."""
        return sum(each.count for each in self._sums.values())


def _rfc3339(wall_s: float) -> str:
    return datetime.datetime.fromtimestamp(wall_s, datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
