"""The REST answers of a snapshot.

Sums are made of the snapshot's integers before they become floats, so that conservation can be checked on any answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from tokenwatt.export import answers
from tokenwatt.export.text import rfc3339
from tokenwatt.snapshot import GpuSnapshot, ModelSnapshot, ServerSnapshot, Snapshot, Window, WindowFigures
from tokenwatt.types import KINDS, STATES, Kind, State


def status(snapshot: Snapshot, now_ns: int) -> answers.Status:
    """``now_ns`` is of ``time.monotonic_ns``."""
    return answers.Status(
        version=snapshot.build.version,
        python=snapshot.build.python,
        ring=snapshot.build.ring,
        simulated=snapshot.simulated,
        started=rfc3339(snapshot.started_wall_s),
        time=rfc3339(snapshot.wall_s),
        uptime_s=round(snapshot.wall_s - snapshot.started_wall_s, 3),
        snapshot_age_s=(now_ns - snapshot.t_ns) / 1e9,
        ready=snapshot.ready,
        problems=list(snapshot.problems),
        windows=[w.label for w in snapshot.windows],
        counts=_counts(snapshot),
        totals=_totals(snapshot),
    )


def gpus(snapshot: Snapshot) -> answers.Gpus:
    """All boards."""
    return answers.Gpus(time=rfc3339(snapshot.wall_s), simulated=snapshot.simulated, items=[_gpu(g) for g in snapshot.gpus])


def servers(snapshot: Snapshot) -> answers.Servers:
    """All servers."""
    items = [_server(s, snapshot.windows) for s in snapshot.servers]
    return answers.Servers(time=rfc3339(snapshot.wall_s), simulated=snapshot.simulated, items=items)


def efficiency(snapshot: Snapshot, window: Window, server: str | None = None, model: str | None = None) -> answers.Efficiency:
    """All models of all servers over one window, or those of one server, or those of one name."""
    return answers.Efficiency(
        window_s=_seconds(window),
        to=rfc3339(snapshot.wall_s),
        simulated=snapshot.simulated,
        items=[
            _efficiency(s, m, m.windows[window.label])
            for s in snapshot.servers
            if server is None or s.name == server
            for m in s.models
            if model is None or m.model == model
        ],
    )


def live(snapshot: Snapshot, now_ns: int) -> answers.Live:
    """Everything. ``now_ns`` is of ``time.monotonic_ns``."""
    return answers.Live(
        status=status(snapshot, now_ns),
        gpus=gpus(snapshot),
        servers=servers(snapshot),
        efficiency={w.label: efficiency(snapshot, w) for w in snapshot.windows},
    )


def _counts(snapshot: Snapshot) -> answers.Counts:
    return answers.Counts(
        gpus=len(snapshot.gpus),
        gpus_up=sum(g.up for g in snapshot.gpus),
        servers=len(snapshot.servers),
        servers_up=sum(s.up for s in snapshot.servers),
    )


def _totals(snapshot: Snapshot) -> answers.Totals:
    booked_uj = sum(energy_uj for s in snapshot.servers for m in s.models for energy_uj in m.energy_uj.values())
    return answers.Totals(
        gpu_energy_j=_joules(sum(g.energy_uj or 0 for g in snapshot.gpus)),
        energy_j=_joules(booked_uj),
        unattributed_energy_j=_joules(sum(g.unattributed_uj or 0 for g in snapshot.gpus)),
        pending_energy_j=_joules(sum(s.pending_uj for s in snapshot.servers)),
    )


def _gpu(g: GpuSnapshot) -> answers.GpuItem:
    return answers.GpuItem(
        index=g.gpu.index,
        uuid=g.gpu.uuid,
        name=g.gpu.name,
        driver=g.gpu.driver,
        pci_bus_id=g.gpu.pci_bus_id,
        up=g.up,
        reason=g.reason,
        source=g.source,
        scope=g.scope,
        energy_j=None if g.energy_uj is None else _joules(g.energy_uj),
        unattributed_energy_j=None if g.unattributed_uj is None else _joules(g.unattributed_uj),
        last_sample=None if g.last_sample_wall_s is None else rfc3339(g.last_sample_wall_s),
        resets=g.resets,
        rejected_readings=g.rejected_readings,
        samples_missed=g.samples_missed,
        agreement_ratio=g.agreement_ratio,
        power_w=_watts(g.power_mw),
        power_instant_w=_watts(g.power_instant_mw),
        power_limit_w=_watts(g.power_limit_mw),
        power_limit_max_w=_watts(g.gpu.power_limit_max_mw),
        power_statistics=_power_statistics(g),
        utilization_ratio=g.utilization_ratio,
        memory_used_bytes=g.memory_used_bytes,
        memory_total_bytes=g.memory_total_bytes,
        temperature_celsius=g.temperature_celsius,
        sm_clock_hz=g.sm_clock_hz,
        clock_events=None if g.clock_events is None else sorted(g.clock_events),
        processes=_processes(g),
        holders=[answers.GpuHolder(server=server, method=method, share_ratio=share) for server, method, share in g.holders],
        split=g.split,
    )


def _power_statistics(g: GpuSnapshot) -> answers.PowerStatisticsItem | None:
    p = g.power_statistics
    if p is None:
        return None
    return answers.PowerStatisticsItem(
        minimum_w=p.minimum_mw / 1e3, p50_w=p.p50_mw / 1e3, p95_w=p.p95_mw / 1e3, maximum_w=p.maximum_mw / 1e3
    )


def _processes(g: GpuSnapshot) -> list[answers.GpuProcessItem] | None:
    if g.processes is None:
        return None
    return [answers.GpuProcessItem(pid=p.pid, memory_bytes=p.memory_bytes) for p in g.processes]


def _server(s: ServerSnapshot, windows: tuple[Window, ...]) -> answers.ServerItem:
    return answers.ServerItem(
        name=s.name,
        url=s.url,
        engine=s.engine,
        version=s.version,
        up=s.up,
        reason=s.reason,
        update=s.update,
        cached=s.cached,
        scope=s.scope,
        group=s.group,
        asleep=s.asleep,
        resolution_s=s.resolution_s,
        requests_running=s.running,
        requests_waiting=s.waiting,
        last_sample=None if s.last_sample_wall_s is None else rfc3339(s.last_sample_wall_s),
        scrape_duration_s=s.scrape_duration_s,
        scrape_bytes=s.scrape_bytes,
        resets=s.resets,
        rejected_readings=s.rejected_readings,
        pending_energy_j=_joules(s.pending_uj),
        gpus=[answers.HeldGpu(index=index, uuid=uuid, method=method) for uuid, index, method in s.gpus],
        models=[answers.ModelItem(model=m.model, energy_j=_by_state(m.energy_uj), tokens=_by_kind(m.tokens)) for m in s.models],
        windows=[_server_window(s, w) for w in windows],
    )


def _server_window(s: ServerSnapshot, window: Window) -> answers.ServerWindowItem:
    figures = s.windows[window.label]
    return answers.ServerWindowItem(
        window=window.label,
        window_s=_seconds(window),
        coverage_ratio=figures.coverage_ratio,
        idle_energy_ratio=figures.idle_energy_ratio,
    )


def _efficiency(s: ServerSnapshot, m: ModelSnapshot, f: WindowFigures) -> answers.EfficiencyItem:
    return answers.EfficiencyItem(
        server=s.name,
        model=m.model,
        to=rfc3339(f.to_wall_s),
        from_=rfc3339(f.from_wall_s),
        coverage_ratio=f.coverage_ratio,
        tokens=_by_kind(f.tokens),
        energy_j=_by_state(f.energy_uj),
        power_w=f.power_watts,
        tokens_per_second=answers.RateByKind(**{kind: f.tokens_per_second.get(kind) for kind in KINDS}),
        tokens_per_joule=_per_token(f.tokens_per_joule),
        joules_per_token=_per_token(f.joules_per_token),
        update=s.update,
        cached=s.cached,
    )


def _by_state(energy_uj: Mapping[State, int]) -> answers.EnergyByState:
    return answers.EnergyByState(**{s: None if s not in energy_uj else _joules(energy_uj[s]) for s in STATES})


def _by_kind(tokens: Mapping[Kind, int]) -> answers.TokensByKind:
    return answers.TokensByKind(**{kind: tokens.get(kind) for kind in KINDS})


def _per_token(figures: Mapping[str, float]) -> answers.PerToken:
    return answers.PerToken(generation=figures.get("generation"), processed=figures.get("processed"), total=figures.get("total"))


def _seconds(window: Window) -> int | float:
    whole, rest = divmod(window.span_ns, 1_000_000_000)
    return window.span_ns / 1e9 if rest else whole


def _joules(energy_uj: int) -> float:
    return energy_uj / 1e6


def _watts(power_mw: int | None) -> float | None:
    return None if power_mw is None else power_mw / 1e3
