"""Everything published, taken at once, immutable. Views (Prometheus, REST, stream, page, terminal) read it and compute nothing.

Energies are int microjoules, tokens int. None is "cannot be known": views leave it out or say null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tokenwatt.types import Cached, Gpu, GpuProcess, Kind, Method, Scope, Split, State, Update


@dataclass(frozen=True, slots=True)
class Window:
    """A trailing span. ``label`` is how users write it: 10s, 1m, 5m, 1h, 24h."""

    label: str
    span_ns: int


@dataclass(frozen=True, slots=True)
class Build:
    """What runs."""

    version: str
    python: str
    ring: str


@dataclass(frozen=True, slots=True)
class PowerStatistics:
    """A board's power over the last minute, from its energy in steps of 1 s, in mW: extremes and percentiles."""

    minimum_mw: int
    p50_mw: int
    p95_mw: int
    maximum_mw: int


@dataclass(frozen=True, slots=True)
class GpuSnapshot:
    """One board. Its totals stay when it is lost; its state figures are None then."""

    gpu: Gpu
    up: bool
    reason: str | None
    """Why it is not up, in words."""
    source: str
    """``counter`` (hardware) or ``integral`` (of power)."""
    scope: Scope
    energy_uj: int | None
    """None: it was never read."""
    unattributed_uj: int | None
    last_sample_wall_s: float | None
    """Wall time of the energy published."""
    resets: int
    rejected_readings: int
    samples_missed: int
    agreement_ratio: float | None
    """Energy by the counter over energy by the integral of power, over the last minutes."""
    power_mw: int | None
    power_instant_mw: int | None
    power_limit_mw: int | None
    power_statistics: PowerStatistics | None
    utilization_ratio: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: int | None
    sm_clock_hz: int | None
    clock_events: frozenset[str] | None
    processes: tuple[GpuProcess, ...] | None
    holders: tuple[tuple[str | None, Method | None, float], ...]
    """(server or None for foreign processes, method, share of the last tick's energy)."""
    split: Split | None


class WindowFigures(NamedTuple):  # made for each window of each model once a second: a frozen dataclass takes six times as long
    """Figures of one server and model over one trailing window that ends at ``to_wall_s``.

    ``from_wall_s`` is its beginning, or the server's first reading where that is later: rates and ratios are over what is between.
    ``energy_uj`` and ``tokens`` are what was booked inside the window, covered or not. The rest is None where the contract says absent.
    Keys of ``tokens_per_joule`` and ``joules_per_token``: generation, processed, total; only known ones are there.
    """

    window: Window
    from_wall_s: float
    to_wall_s: float
    coverage_ratio: float
    covered: bool
    energy_uj: Mapping[State, int]
    tokens: Mapping[Kind, int]
    power_watts: float | None
    tokens_per_second: Mapping[Kind, float]
    tokens_per_joule: Mapping[str, float]
    joules_per_token: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """One model of one server: totals, and figures by window label."""

    model: str
    energy_uj: Mapping[State, int]
    tokens: Mapping[Kind, int]
    windows: Mapping[str, WindowFigures]


class ServerWindow(NamedTuple):
    """One server over one trailing window, all models together."""

    coverage_ratio: float
    idle_energy_ratio: float | None


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """One server. Its totals stay when it is gone."""

    name: str
    url: str
    engine: str
    version: str
    up: bool
    reason: str | None
    update: Update | None
    cached: Cached | None
    scope: str
    """``whole``, or ``partial`` for a member of a server that spans nodes."""
    group: str | None
    """The server that spans nodes which it is a member of."""
    asleep: bool | None
    """Whether it put its model away until the next request. None: it does not tell, or is not up."""
    resolution_s: float | None
    """The time its counters need: in shorter windows its tokens are not those of the joules. 0: they move at each step. None: not known."""
    running: int | None
    waiting: int | None
    last_sample_wall_s: float | None
    scrape_duration_s: float | None
    scrape_bytes: int | None
    resets: int
    rejected_readings: int
    pending_uj: int
    gpus: tuple[tuple[str, int, Method], ...]
    """(uuid, index, method) of the GPUs it holds now."""
    models: tuple[ModelSnapshot, ...]
    windows: Mapping[str, ServerWindow]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One instant of the meter."""

    t_ns: int
    wall_s: float
    started_wall_s: float
    build: Build
    simulated: bool
    windows: tuple[Window, ...]
    """All windows that figures exist for."""
    metrics_windows: tuple[Window, ...]
    """Those that Prometheus is shown."""
    gpus: tuple[GpuSnapshot, ...]
    servers: tuple[ServerSnapshot, ...]
    ready: bool
    """Energy was sampled and every configured server was asked once."""
    problems: tuple[str, ...] = field(default=())
    """What is wrong now, in words: one sentence each."""
