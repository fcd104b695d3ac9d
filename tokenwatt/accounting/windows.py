"""Figures over trailing windows, read from a server's rings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tokenwatt.accounting.servers import ModelBook, ServerBook
from tokenwatt.ring import Ring
from tokenwatt.snapshot import ServerWindow, Window, WindowFigures
from tokenwatt.types import STATES, Kind, State

COVERED = 0.95
"""The part of a window that closed, observed intervals must fill for its figures to be told."""

FRESH_PERIODS = 3


@dataclass(frozen=True, slots=True)
class Span:
    """One server's window: where it ends, and how much of it was seen."""

    window: Window
    start_ns: int
    to_ns: int
    coverage_ratio: float
    covered: bool

    def delta(self, ring: Ring | None) -> int:
        """What a figure rose by; 0 where there is none yet."""
        return 0 if ring is None else ring.delta(self.start_ns, self.to_ns)


def span(book: ServerBook, window: Window, now_ns: int, period_ns: int) -> Span:
    """The window of one server.

    It ends at the last closed interval, or now if the server was not read for three periods: what is not known is then missing at its end.
    """
    read_ns = book.reading.t_ns if book.reading is not None else None
    fresh = book.present and read_ns is not None and now_ns - read_ns <= FRESH_PERIODS * period_ns
    to_ns = book.closed_ns if fresh and book.closed_ns is not None else now_ns
    start_ns = to_ns - window.span_ns
    observed = book.observed_ring
    seen_ns = observed.delta(start_ns, to_ns) if observed.last is not None else 0
    coverage_ratio = min(seen_ns / window.span_ns, 1.0)
    untouched = book.gap_ns is None or book.gap_ns <= start_ns
    return Span(window, start_ns, to_ns, coverage_ratio, fresh and coverage_ratio >= COVERED and untouched)


def server_window(book: ServerBook, at: Span, models: Iterable[WindowFigures]) -> ServerWindow:
    """All models of a server together."""
    idle_ratio = None
    if at.covered and book.held:
        idle_uj = loaded_uj = 0
        for f in models:
            idle_uj += f.energy_uj["idle"]
            loaded_uj += sum(f.energy_uj.values())
        idle_ratio = idle_uj / loaded_uj if loaded_uj else None
    return ServerWindow(at.coverage_ratio, idle_ratio)


def figures(book: ServerBook, model: ModelBook, at: Span, wall_of: Callable[[int], float]) -> WindowFigures:
    """One model over one window. ``wall_of`` tells the wall time of an instant."""
    energy_uj: Mapping[State, int] = {state: at.delta(model.rings.get(state)) for state in STATES} if book.held else {}
    tokens: Mapping[Kind, int] = {kind: at.delta(model.rings.get(kind)) for kind in model.tokens}
    power_watts, rates, per_joule = None, {}, {}
    first = book.observed_ring.first
    from_ns = at.start_ns if first is None else min(max(at.start_ns, first[0]), at.to_ns)
    if at.covered:
        seconds = (at.to_ns - from_ns) / 1e9
        rates = {kind: count / seconds for kind, count in tokens.items()}
        if book.held:
            joules = sum(energy_uj.values()) / 1e6
            power_watts = joules / seconds
            if joules > 0:
                per_joule = {name: count / joules for name, count in _denominators(book, tokens).items() if count > 0}
    return WindowFigures(
        window=at.window,
        from_wall_s=wall_of(from_ns),
        to_wall_s=wall_of(at.to_ns),
        coverage_ratio=at.coverage_ratio,
        covered=at.covered,
        energy_uj=energy_uj,
        tokens=tokens,
        power_watts=power_watts,
        tokens_per_second=rates,
        tokens_per_joule=per_joule,
        joules_per_token={name: 1 / value for name, value in per_joule.items()},
    )


def _denominators(book: ServerBook, tokens: Mapping[Kind, int]) -> Mapping[str, int]:
    counts = {"total": sum(tokens.values())}
    if "generation" in tokens:
        counts["generation"] = tokens["generation"]
        # Where cached prompt tokens are not told apart, nobody knows what was worked for.
        if book.reading is not None and book.reading.cached == "known":
            counts["processed"] = tokens["generation"] + tokens.get("prompt_computed", 0)
    return counts
