"""One server's tokens from its readings: deltas per series, resets recognised, cached tokens taken off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenwatt.types import Kind, Listener, SeriesKey, ServerReading

REJECTIONS_TO_RESTART = 3


@dataclass(frozen=True, slots=True)
class TokenDeltas:
    """What one reading brought since the last, by (model, kind).

    ``reset``: counters began anew, so tokens made before were lost with them. ``rejected``: why the reading is not believed; it
    moved nothing.
    """

    tokens: Mapping[tuple[str, Kind], int] = field(default_factory=dict)
    reset: bool = False
    rejected: str | None = None


class TokenCounters:
    """The counters of one server over its lives."""

    def __init__(self) -> None:
        self.resets = 0
        self.rejected = 0
        self._last: dict[SeriesKey, int] = {}
        self._last_t_ns: int | None = None
        self._process_start: float | None = None
        self._listener: Listener | None = None
        self._cached_ahead: dict[str, int] = defaultdict(int)
        self._rejected_in_a_row = 0

    def refuse(self) -> None:
        """Count a page whose values no server can mean."""
        self.rejected += 1

    def apply(self, reading: ServerReading, *, started_since_ns: int | None = None) -> TokenDeltas:
        """Take one reading.

        ``started_since_ns``: the server was seen away at that instant and is back, or is seen for the first time and is known to have
        started after it. Its counters then began at zero while we watched. Else the first reading is only a baseline.
        """
        restarted = self._restarted(reading, started_since_ns)
        first = self._last_t_ns is None and started_since_ns is None
        deltas: dict[SeriesKey, int] = {}
        reset = restarted and self._last_t_ns is not None
        for key, value in reading.counters.items():
            before = self._last.get(key, 0)
            fell = value < before
            reset |= fell
            deltas[key] = value if restarted or fell else value - before
        since_ns = self._last_t_ns if self._last_t_ns is not None else started_since_ns
        if first:
            deltas = {}
        elif since_ns is not None and (why := _impossible(deltas, reading.t_ns - since_ns)) is not None:
            self.rejected += 1
            self._rejected_in_a_row += 1
            if self._rejected_in_a_row < REJECTIONS_TO_RESTART:
                return TokenDeltas(rejected=why)
            deltas, reset = {}, True
        if reset:
            self.resets += 1
            self._cached_ahead.clear()
        self._keep(reading, restarted)
        return TokenDeltas(self._fold(deltas), reset)

    def _restarted(self, reading: ServerReading, started_since_ns: int | None) -> bool:
        if reading.process_start is not None and self._process_start is not None:
            return reading.process_start != self._process_start
        # Without a start time, only one that was seen away is another process, unless the same process still listens.
        same_listener = reading.listener is not None and reading.listener == self._listener
        return started_since_ns is not None and not same_listener

    def _keep(self, reading: ServerReading, restarted: bool) -> None:
        self._rejected_in_a_row = 0
        if restarted:
            self._last.clear()
        # A series that is missing on this page keeps its value: it may come back.
        self._last.update(reading.counters)
        self._last_t_ns = reading.t_ns
        self._process_start = reading.process_start if reading.process_start is not None else self._process_start
        self._listener = reading.listener

    def _fold(self, deltas: Mapping[SeriesKey, int]) -> dict[tuple[str, Kind], int]:
        folded: dict[tuple[str, Kind], int] = defaultdict(int)
        with_cached: dict[str, int] = defaultdict(int)
        for key, delta in deltas.items():
            if key.kind == "prompt":
                with_cached[key.model] += delta
            else:
                folded[key.model, key.kind] += delta
        for model, prompt in with_cached.items():
            computed = prompt - folded[model, "prompt_cached"] - self._cached_ahead[model]
            # The two counters move together, but a page may be rendered between them. Nothing published falls: what the cached one is
            # ahead is taken off the next tokens instead.
            self._cached_ahead[model] = max(-computed, 0)
            folded[model, "prompt_computed"] += max(computed, 0)
        return dict(folded)


def _impossible(deltas: Mapping[SeriesKey, int], dt_ns: int) -> str | None:
    for key, delta in deltas.items():
        if delta > max(dt_ns, 1):  # 10^9 tokens a second is one a nanosecond
            return f"{key.kind} tokens of model {key.model!r} rose by {delta} in {dt_ns / 1e9:.3f} s: more than 10^9 a second"
    return None
