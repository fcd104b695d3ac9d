"""The one table of metric families: names, labels, help and where each sample comes from.

The exposition, docs/metrics.md and the test that freezes the names are all made from ``FAMILIES``. Names and labels are a contract with
users' dashboards: a change here is a breaking change. A family without samples still shows its HELP and TYPE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tokenwatt.energy.clock_events import CLOCK_EVENTS
from tokenwatt.snapshot import GpuSnapshot, ModelSnapshot, ServerSnapshot, Snapshot, WindowFigures

PREFIX = "tokenwatt_"

Sample = tuple[tuple[str, ...], float]
"""Label values in the order of the family's labels, and the value."""

Collect = Callable[[Snapshot], Iterator[Sample]]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. ``name`` is the full name of its samples; a counter's ends in ``_total``."""

    name: str
    type: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    help: str
    collect: Collect


def _joules(energy_uj: int) -> float:
    # The nearest double: exact to the microjoule up to 2^33 J, 8.6 GJ, and to 1 part in 10^16 beyond.
    return energy_uj / 1e6


def _gpu(value: Callable[[GpuSnapshot], float | int | bool | None]) -> Collect:
    """One sample a GPU, labels gpu and uuid; none where ``value`` is None."""

    def collect(snapshot: Snapshot) -> Iterator[Sample]:
        for g in snapshot.gpus:
            v = value(g)
            if v is not None:
                yield (str(g.gpu.index), g.gpu.uuid), float(v)

    return collect


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _server(value: Callable[[ServerSnapshot], float | int | bool | None]) -> Collect:
    """One sample a server, label server; none where ``value`` is None."""

    def collect(snapshot: Snapshot) -> Iterator[Sample]:
        for s in snapshot.servers:
            v = value(s)
            if v is not None:
                yield (s.name,), float(v)

    return collect


def _models(snapshot: Snapshot) -> Iterator[tuple[ServerSnapshot, ModelSnapshot]]:
    for s in snapshot.servers:
        for m in s.models:
            yield s, m


def _figures(snapshot: Snapshot) -> Iterator[tuple[ServerSnapshot, ModelSnapshot, WindowFigures]]:
    for s, m in _models(snapshot):
        for w in snapshot.metrics_windows:
            yield s, m, m.windows[w.label]


def _energy(snapshot: Snapshot) -> Iterator[Sample]:
    for s, m in _models(snapshot):
        for state, energy_uj in m.energy_uj.items():
            yield (s.name, m.model, state), _joules(energy_uj)


def _tokens(snapshot: Snapshot) -> Iterator[Sample]:
    for s, m in _models(snapshot):
        for kind, tokens in m.tokens.items():
            yield (s.name, m.model, kind), float(tokens)


def _tokens_per_joule(snapshot: Snapshot) -> Iterator[Sample]:
    for s, m, f in _figures(snapshot):
        for tokens, value in f.tokens_per_joule.items():
            yield (s.name, m.model, tokens, f.window.label), value


def _tokens_per_second(snapshot: Snapshot) -> Iterator[Sample]:
    for s, m, f in _figures(snapshot):
        for kind, value in f.tokens_per_second.items():
            yield (s.name, m.model, kind, f.window.label), value


def _power_watts(snapshot: Snapshot) -> Iterator[Sample]:
    for s, m, f in _figures(snapshot):
        if f.power_watts is not None:
            yield (s.name, m.model, f.window.label), f.power_watts


def _idle_energy_ratio(snapshot: Snapshot) -> Iterator[Sample]:
    for s in snapshot.servers:
        for w in snapshot.metrics_windows:
            ratio = s.windows[w.label].idle_energy_ratio
            if ratio is not None:
                yield (s.name, w.label), ratio


def _coverage_ratio(snapshot: Snapshot) -> Iterator[Sample]:
    for s in snapshot.servers:
        for w in snapshot.metrics_windows:
            yield (s.name, w.label), s.windows[w.label].coverage_ratio


def _gpu_info(snapshot: Snapshot) -> Iterator[Sample]:
    for g in snapshot.gpus:
        yield (str(g.gpu.index), g.gpu.uuid, g.gpu.name, g.gpu.driver, g.gpu.pci_bus_id), 1.0


def _energy_source_info(snapshot: Snapshot) -> Iterator[Sample]:
    for g in snapshot.gpus:
        yield (str(g.gpu.index), g.gpu.uuid, g.source, g.scope), 1.0


def _clock_events(snapshot: Snapshot) -> Iterator[Sample]:
    for g in snapshot.gpus:
        if g.clock_events is not None:
            for reason in CLOCK_EVENTS.values():
                yield (str(g.gpu.index), g.gpu.uuid, reason), float(reason in g.clock_events)


def _server_info(snapshot: Snapshot) -> Iterator[Sample]:
    for s in snapshot.servers:
        if s.update is not None and s.cached is not None:
            yield (s.name, s.engine, s.version, s.update, s.cached, s.scope), 1.0


def _server_group_info(snapshot: Snapshot) -> Iterator[Sample]:
    for s in snapshot.servers:
        if s.group is not None:
            yield (s.name, s.group), 1.0


def _server_gpu_info(snapshot: Snapshot) -> Iterator[Sample]:
    for s in snapshot.servers:
        for uuid, index, method in s.gpus:
            yield (s.name, str(index), uuid, method), 1.0


def _build_info(snapshot: Snapshot) -> Iterator[Sample]:
    yield (snapshot.build.version, snapshot.build.python, snapshot.build.ring), 1.0


def _simulated(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), float(snapshot.simulated)


def _reload(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), 1.0  # the daemon does not start on settings that it cannot load


def nothing(snapshot: Snapshot) -> Iterator[Sample]:
    """For families whose names are fixed and that nothing in this version measures or prices: HELP and TYPE, and no samples."""
    return iter(())


_GPU = ("gpu", "uuid")
_MODEL = ("server", "model")


def _counter(name: str, labels: tuple[str, ...], help_: str, collect: Collect) -> Family:
    return Family(PREFIX + name, "counter", labels, help_, collect)


def _gauge(name: str, labels: tuple[str, ...], help_: str, collect: Collect) -> Family:
    return Family(PREFIX + name, "gauge", labels, help_, collect)


FAMILIES: tuple[Family, ...] = (
    # Truth: counters. Pairs of one server are always from the same instant.
    _counter(
        "gpu_energy_joules_total", _GPU, "Energy of the board since the meter first saw it.", _gpu(lambda g: _scaled(g.energy_uj, 1e6))
    ),
    _counter("energy_joules_total", (*_MODEL, "state"), "Energy of closed intervals at boundary gpu, by state.", _energy),
    _counter(
        "unattributed_energy_joules_total",
        _GPU,
        "Energy of the board that no server owns.",
        _gpu(lambda g: _scaled(g.unattributed_uj, 1e6)),
    ),
    _counter("node_energy_joules_total", ("component",), "Energy of the rest of the node: cpu, dram, host.", nothing),
    _counter("server_host_energy_joules_total", _MODEL, "The model's part of the host's energy.", nothing),
    _counter("tokens_total", (*_MODEL, "kind"), "Tokens of closed intervals. Kinds are disjoint.", _tokens),
    _counter("cost_total", (*_MODEL, "component", "currency"), "Cost at the prices in force when it arose.", nothing),
    _counter("unattributed_cost_total", ("component", "currency"), "Cost of GPUs and host that no server owns.", nothing),
    _counter("carbon_grams_total", _MODEL, "Emissions in grams CO2e at boundary facility.", nothing),
    _counter("gpu_energy_resets_total", _GPU, "Times the board's energy counter began anew.", _gpu(lambda g: g.resets)),
    _counter("gpu_rejected_readings_total", _GPU, "Readings no hardware could make, not booked.", _gpu(lambda g: g.rejected_readings)),
    _counter("samples_missed_total", _GPU, "Power samples that were due and not made.", _gpu(lambda g: g.samples_missed)),
    _counter("server_resets_total", ("server",), "Times the server's token counters began anew.", _server(lambda s: s.resets)),
    _counter(
        "server_rejected_readings_total",
        ("server",),
        "Token readings no server could mean, not booked.",
        _server(lambda s: s.rejected_readings),
    ),
    # Convenience: gauges over a window.
    _gauge(
        "tokens_per_joule",
        (*_MODEL, "tokens", "window"),
        "Tokens a joule bought over the window, at boundary gpu, idle energy included.",
        _tokens_per_joule,
    ),
    _gauge(
        "cost_per_million_tokens",
        (*_MODEL, "tokens", "basis", "window", "currency"),
        "Cost of a million tokens over the window.",
        nothing,
    ),
    _gauge("tokens_per_second", (*_MODEL, "kind", "window"), "Tokens a second over the window.", _tokens_per_second),
    _gauge("power_watts", (*_MODEL, "window"), "Mean power over the window, at boundary gpu.", _power_watts),
    _gauge("idle_energy_ratio", ("server", "window"), "Idle energy over all energy of the server.", _idle_energy_ratio),
    _gauge("coverage_ratio", ("server", "window"), "The part of the window that observed intervals fill.", _coverage_ratio),
    # State: gauges.
    _gauge("gpu_up", _GPU, "1 where the last read of the board was good.", _gpu(lambda g: g.up)),
    _gauge("gpu_info", (*_GPU, "name", "driver", "pci_bus_id"), "The board.", _gpu_info),
    _gauge("gpu_power_watts", _GPU, "Power now: the board's 1 s mean, else its instant value.", _gpu(lambda g: _scaled(g.power_mw, 1e3))),
    _gauge("gpu_power_limit_watts", _GPU, "The power limit in force.", _gpu(lambda g: _scaled(g.power_limit_mw, 1e3))),
    _gauge("gpu_utilization_ratio", _GPU, "Part of the time in which a kernel ran.", _gpu(lambda g: g.utilization_ratio)),
    _gauge("gpu_memory_used_bytes", _GPU, "Memory in use.", _gpu(lambda g: g.memory_used_bytes)),
    _gauge("gpu_memory_total_bytes", _GPU, "Memory on the board.", _gpu(lambda g: g.memory_total_bytes)),
    _gauge("gpu_temperature_celsius", _GPU, "Temperature of the chip.", _gpu(lambda g: g.temperature_celsius)),
    _gauge("gpu_sm_clock_hertz", _GPU, "Clock of the streaming multiprocessors.", _gpu(lambda g: g.sm_clock_hz)),
    _gauge("gpu_clock_event_active", (*_GPU, "reason"), "1 where the reason holds the clocks down now.", _clock_events),
    _gauge(
        "gpu_energy_source_info",
        (*_GPU, "source", "scope"),
        "Where the board's energy comes from, and what it covers.",
        _energy_source_info,
    ),
    _gauge(
        "gpu_energy_agreement_ratio",
        _GPU,
        "Energy by the counter over energy by the integral of power, over the last 5 minutes.",
        _gpu(lambda g: g.agreement_ratio),
    ),
    _gauge(
        "last_sample_timestamp_seconds",
        _GPU,
        "Wall time of the energy published.",
        _gpu(lambda g: g.last_sample_wall_s),
    ),
    _gauge(
        "pending_energy_joules",
        ("server",),
        "Energy measured whose interval is not closed yet.",
        _server(lambda s: _joules(s.pending_uj)),
    ),
    _gauge("server_up", ("server",), "1 where the last read of the server was good.", _server(lambda s: s.up)),
    _gauge(
        "server_info",
        ("server", "engine", "version", "update", "cached", "scope"),
        "The server, when its counters move, and whether it tells cached prompt tokens apart.",
        _server_info,
    ),
    # Beyond the contract: the members of a server that spans nodes can be put together in PromQL only by a label they share.
    _gauge("server_group_info", ("server", "group"), "The server that spans nodes which this one is a member of.", _server_group_info),
    _gauge("server_requests_running", ("server",), "Requests that run now.", _server(lambda s: s.running)),
    _gauge("server_requests_waiting", ("server",), "Requests that wait now.", _server(lambda s: s.waiting)),
    _gauge("server_gpu_info", ("server", *_GPU, "method"), "A GPU the server holds, and how that is known.", _server_gpu_info),
    _gauge(
        "server_last_sample_timestamp_seconds",
        ("server",),
        "Wall time of the last good reading of the server.",
        _server(lambda s: s.last_sample_wall_s),
    ),
    _gauge("server_scrape_duration_seconds", ("server",), "Time the last good reading took.", _server(lambda s: s.scrape_duration_s)),
    _gauge("server_scrape_bytes", ("server",), "Size of the last good reading.", _server(lambda s: s.scrape_bytes)),
    _gauge("simulated", (), "1 in a demo: every figure is made up.", _simulated),
    _gauge("config_last_reload_successful", (), "1 where the last settings read were good.", _reload),
    _gauge("store_up", (), "1 where history is being stored.", nothing),
    _gauge("build_info", ("version", "python", "ring"), "What runs.", _build_info),
)
