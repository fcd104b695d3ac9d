"""Figures over trailing windows, read from a server's rings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from tokenwatt.accounting.servers import WORK, ModelBook, ServerBook
from tokenwatt.snapshot import ServerWindow, Window, WindowFigures
from tokenwatt.types import STATES, Kind, State

COVERED = 0.95
"""The part of a window that closed, observed intervals must fill for its figures to be told."""

FRESH_PERIODS = 3


class Span(NamedTuple):
    """One server's window: where it ends, and how much of it was seen. ``from_ns``: the first reading where that is after the start."""

    window: Window
    start_ns: int
    from_ns: int
    to_ns: int
    coverage_ratio: float
    covered: bool
    powered: bool
    """Covered, and all the time it held a board: what it used is known as well."""
    resolved: bool
    """It is as long as the server's counter needs: its tokens are those of its joules."""


def spans(book: ServerBook, windows: Iterable[Window], now_ns: int, period_ns: int) -> list[Span]:
    """The windows of one server.

    They end at the last closed interval, or now if the server was not read for three periods: what is not known is then missing at their
    end.
    """
    read_ns = book.reading.t_ns if book.reading is not None else None
    fresh = book.present and read_ns is not None and now_ns - read_ns <= FRESH_PERIODS * period_ns
    to_ns = book.closed_ns if fresh and book.closed_ns is not None else now_ns
    first = book.observed_ring.first
    needed_ns = book.resolution.needed_ns or 0
    out = []
    for window in windows:
        start_ns = to_ns - window.span_ns
        from_ns = start_ns if first is None else min(max(start_ns, first[0]), to_ns)
        seen_ns = 0 if first is None else book.observed_ring.delta(start_ns, to_ns)
        coverage_ratio = min(seen_ns / window.span_ns, 1.0)
        untouched = book.gap_ns is None or book.gap_ns <= start_ns
        covered = fresh and coverage_ratio >= COVERED and untouched
        powered = covered and book.held and (book.unheld_ns is None or book.unheld_ns <= start_ns)
        out.append(Span(window, start_ns, from_ns, to_ns, coverage_ratio, covered, powered, window.span_ns >= needed_ns))
    return out


def server_window(book: ServerBook, at: Span, models: Iterable[WindowFigures]) -> ServerWindow:
    """All models of a server together."""
    idle_ratio = None
    if at.powered:
        idle_uj = loaded_uj = 0
        for f in models:
            idle_uj += f.energy_uj["idle"]
            loaded_uj += sum(f.energy_uj.values())
        idle_ratio = idle_uj / loaded_uj if loaded_uj else None
    return ServerWindow(at.coverage_ratio, idle_ratio)


def figures(book: ServerBook, model: ModelBook, at: Span, wall_of: Callable[[int], float]) -> WindowFigures:
    """One model over one window. ``wall_of`` tells the wall time of an instant."""
    window, start_ns, from_ns, to_ns, coverage_ratio, covered, powered, resolved = at
    # A figure that is new has no ring before its first interval is closed.
    rise = {figure: ring.delta(start_ns, to_ns) for figure, ring in model.rings.items()}
    energy_uj: Mapping[State, int] = {state: rise.get(state, 0) for state in STATES} if book.held else {}
    tokens: Mapping[Kind, int] = {kind: rise.get(kind, 0) for kind in model.tokens}
    power_watts, rates, per_joule = None, {}, {}
    seconds = (to_ns - from_ns) / 1e9
    if covered and resolved:
        rates = {kind: count / seconds for kind, count in tokens.items()}
    if powered:
        joules = sum(energy_uj.values()) / 1e6
        power_watts = joules / seconds
        if joules > 0 and resolved and not book.partial:
            per_joule = {name: count / joules for name, count in _denominators(book, tokens).items() if count > 0}
    return WindowFigures(
        window=window,
        from_wall_s=wall_of(from_ns),
        to_wall_s=wall_of(to_ns),
        coverage_ratio=coverage_ratio,
        covered=covered,
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
        counts["processed"] = sum(tokens.get(kind, 0) for kind in WORK)
    return counts
