"""Snapshots to show: a realistic node, and hypothesis strategies for any."""

from __future__ import annotations

import time
from typing import TypeVar

from hypothesis import strategies as st

from tokenwatt.energy.clock_events import CLOCK_EVENTS
from tokenwatt.snapshot import (
    Build,
    GpuSnapshot,
    ModelSnapshot,
    PowerStatistics,
    ServerSnapshot,
    ServerWindow,
    Snapshot,
    Window,
    WindowFigures,
)
from tokenwatt.types import KINDS, STATES, Gpu, GpuProcess, Kind, Method, State

SECOND_NS = 1_000_000_000
WINDOWS = tuple(Window(label, s * SECOND_NS) for label, s in (("10s", 10), ("1m", 60), ("5m", 300), ("1h", 3600), ("24h", 86400)))
BUILD = Build("0.1.0", "3.11.2", "c")


# --- a realistic node ---------------------------------------------------------------------------------------------------------------------


def node(gpus: int = 8, servers: int = 8, *, t_ns: int | None = None, wall_s: float | None = None, tokens: int = 123_456_789) -> Snapshot:
    """A busy node, every server on its own GPU, taken now."""
    t_ns = time.monotonic_ns() if t_ns is None else t_ns
    wall_s = time.time() if wall_s is None else wall_s
    pending_uj = 217_345_678
    booked = [_server(i, wall_s, tokens + i, pending_uj) for i in range(servers)]
    owned_uj = [sum(e for m in s.models for e in m.energy_uj.values()) + pending_uj for s in booked]
    return Snapshot(
        t_ns=t_ns,
        wall_s=wall_s,
        started_wall_s=wall_s - 86_400.0,
        build=BUILD,
        simulated=False,
        windows=WINDOWS,
        metrics_windows=WINDOWS[:3],
        gpus=tuple(_gpu(i, wall_s, owned_uj[i] if i < servers else 0) for i in range(gpus)),
        servers=tuple(booked),
        ready=True,
    )


def _gpu(i: int, wall_s: float, owned_uj: int) -> GpuSnapshot:
    unattributed_uj = 42_000_001 * (i + 1)
    return GpuSnapshot(
        gpu=Gpu(f"GPU-{i:08x}-1111-2222-3333-444455556666", i, "NVIDIA H100 80GB HBM3", "570.86.15", f"00000000:{i:02X}:00.0", 700_000),
        up=True,
        reason=None,
        source="counter",
        scope="gpu",
        energy_uj=owned_uj + unattributed_uj,
        unattributed_uj=unattributed_uj,
        last_sample_wall_s=wall_s - 0.0625,
        resets=0,
        rejected_readings=1,
        samples_missed=3,
        agreement_ratio=1.00342,
        power_mw=612_345,
        power_instant_mw=634_567,
        power_limit_mw=700_000,
        power_statistics=PowerStatistics(110_000, 600_500, 690_250, 703_125),
        utilization_ratio=0.97,
        memory_used_bytes=71_234_567_890,
        memory_total_bytes=85_520_809_984,
        temperature_celsius=67,
        sm_clock_hz=1_980_000_000,
        clock_events=frozenset({"sw_power_cap"}),
        processes=(GpuProcess(4000 + i, 70_000_000_000),),
        holders=((f"chat-{i}", "ancestry", 1.0),),
        split="sole",
    )


def _server(i: int, wall_s: float, tokens: int, pending_uj: int) -> ServerSnapshot:
    figures = {w.label: _figures(w, wall_s - 0.25) for w in WINDOWS}
    energy_uj: dict[State, int] = {"active": 12_345_678_901 + i, "idle": 345_678_901, "unobserved": 5}
    kinds: dict[Kind, int] = {"generation": tokens, "prompt_computed": 10 * tokens, "prompt_cached": 3 * tokens}
    return ServerSnapshot(
        name=f"chat-{i}",
        url=f"http://127.0.0.1:{8000 + i}",
        engine="vllm",
        version="0.32.0",
        up=True,
        reason=None,
        update="step",
        cached="known",
        scope="whole",
        group=None,
        asleep=False,
        resolution_s=0.0,
        running=17,
        waiting=0,
        last_sample_wall_s=wall_s - 0.25,
        scrape_duration_s=0.004123,
        scrape_bytes=1234,
        resets=0,
        rejected_readings=0,
        pending_uj=pending_uj,
        gpus=((f"GPU-{i:08x}-1111-2222-3333-444455556666", i, "ancestry"),),
        models=(ModelSnapshot("meta-llama/Llama-3.1-8B-Instruct", energy_uj, kinds, figures),),
        windows={w.label: ServerWindow(0.9983, 0.0321) for w in WINDOWS},
    )


def _figures(window: Window, to_wall_s: float) -> WindowFigures:
    seconds = window.span_ns // SECOND_NS
    return WindowFigures(
        window=window,
        from_wall_s=to_wall_s - seconds,
        to_wall_s=to_wall_s,
        coverage_ratio=0.9983,
        covered=True,
        energy_uj={"active": seconds * 600_123_456, "idle": seconds * 12_000_000, "unobserved": 0},
        tokens={"generation": seconds * 5147, "prompt_computed": seconds * 51_470, "prompt_cached": seconds * 1000},
        power_watts=612.123456,
        tokens_per_second={"generation": 5147.123, "prompt_computed": 51_470.5, "prompt_cached": 1000.0},
        tokens_per_joule={"generation": 8.408, "processed": 92.49, "total": 94.12},
        joules_per_token={"generation": 1 / 8.408, "processed": 1 / 92.49, "total": 1 / 94.12},
    )


# --- any snapshot -------------------------------------------------------------------------------------------------------------------------

# What a label or a JSON string has to escape comes up often. Half surrogates are what JSON allows and UTF-8 does not.
_TEXT = st.text(st.one_of(st.sampled_from('"\\\n\r\t{},= \x00é€𝄞\ud800'), st.characters()), max_size=8)
_COUNT = st.integers(0, 2**40)
# Up to where the distance of two doubles (of joules) is more than a microjoule.
_ENERGY_UJ = st.integers(0, 2**33 * 10**6)
_FIGURE = st.floats(0, 1e12)
_RATIO = st.floats(0, 1)
_WALL_S = st.floats(0, 4e9)
_METHODS: tuple[Method, ...] = ("settings", "ancestry", "only_server")

_T = TypeVar("_T")


def _maybe(strategy: st.SearchStrategy[_T]) -> st.SearchStrategy[_T | None]:
    return st.none() | strategy


def _some(keys: tuple[_T, ...], values: st.SearchStrategy[object]) -> st.SearchStrategy[dict[_T, object]]:
    return st.dictionaries(st.sampled_from(keys), values)


_PER_TOKEN = _some(("generation", "processed", "total"), _FIGURE)


def _gpus(index: int) -> st.SearchStrategy[GpuSnapshot]:
    gpu = st.builds(
        Gpu,
        uuid=_TEXT.map(lambda t: f"{index}{t}"),
        index=st.just(index),
        **dict.fromkeys(("name", "driver", "pci_bus_id"), _TEXT),
        power_limit_max_mw=_maybe(_COUNT),
    )
    return st.builds(
        GpuSnapshot,
        gpu=gpu,
        source=st.sampled_from(("counter", "integral")),
        energy_uj=_maybe(_ENERGY_UJ),
        unattributed_uj=_maybe(_ENERGY_UJ),
        last_sample_wall_s=_maybe(_WALL_S),
        agreement_ratio=_maybe(_RATIO),
        reason=_maybe(_TEXT),
        power_statistics=_maybe(st.builds(PowerStatistics, _COUNT, _COUNT, _COUNT, _COUNT)),
        utilization_ratio=_maybe(_RATIO),
        clock_events=_maybe(st.frozensets(st.sampled_from(tuple(CLOCK_EVENTS.values())))),
        processes=_maybe(st.builds(lambda p: (p,), st.builds(GpuProcess, _COUNT, _maybe(_COUNT)))),
        holders=st.lists(st.tuples(_maybe(_TEXT), _maybe(st.sampled_from(_METHODS)), _RATIO), max_size=2).map(tuple),
        **dict.fromkeys(("resets", "rejected_readings", "samples_missed"), _COUNT),
        **dict.fromkeys(
            (
                "power_mw",
                "power_instant_mw",
                "power_limit_mw",
                "memory_used_bytes",
                "memory_total_bytes",
                "temperature_celsius",
                "sm_clock_hz",
            ),
            _maybe(_COUNT),
        ),
    )


def _window_figures(window: Window) -> st.SearchStrategy[WindowFigures]:
    return st.builds(
        WindowFigures,
        window=st.just(window),
        from_wall_s=_WALL_S,
        to_wall_s=_WALL_S,
        coverage_ratio=_RATIO,
        energy_uj=_some(STATES, _ENERGY_UJ),
        tokens=_some(KINDS, _COUNT),
        power_watts=_maybe(_FIGURE),
        tokens_per_second=_some(KINDS, _FIGURE),
        tokens_per_joule=_PER_TOKEN,
        joules_per_token=_PER_TOKEN,
    )


def _models(index: int, windows: tuple[Window, ...]) -> st.SearchStrategy[ModelSnapshot]:
    return st.builds(
        ModelSnapshot,
        model=_TEXT.map(lambda t: f"{t}{index}"),
        energy_uj=_some(STATES, _ENERGY_UJ),
        tokens=_some(KINDS, _COUNT),
        windows=st.fixed_dictionaries({w.label: _window_figures(w) for w in windows}),
    )


def _servers(index: int, windows: tuple[Window, ...]) -> st.SearchStrategy[ServerSnapshot]:
    window = st.builds(ServerWindow, coverage_ratio=_RATIO, idle_energy_ratio=_maybe(_RATIO))
    return st.builds(
        ServerSnapshot,
        name=_TEXT.map(lambda t: f"{t}{index}"),
        **dict.fromkeys(("url", "engine", "version"), _TEXT),
        scope=st.sampled_from(("whole", "partial")),
        reason=_maybe(_TEXT),
        group=_maybe(_TEXT),
        resolution_s=_maybe(_FIGURE),
        **dict.fromkeys(("running", "waiting", "scrape_bytes"), _maybe(_COUNT)),
        last_sample_wall_s=_maybe(_WALL_S),
        scrape_duration_s=_maybe(_FIGURE),
        **dict.fromkeys(("resets", "rejected_readings"), _COUNT),
        pending_uj=_ENERGY_UJ,
        gpus=st.lists(st.tuples(_TEXT, st.integers(0, 9), st.sampled_from(_METHODS)), max_size=2, unique_by=lambda g: g[1]).map(tuple),
        models=st.integers(0, 2).flatmap(lambda n: st.tuples(*(_models(i, windows) for i in range(n)))),
        windows=st.fixed_dictionaries({w.label: window for w in windows}),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Any snapshot, taken now. Names of GPUs, servers and models are unique, nothing else is consistent."""
    windows = tuple(draw(st.lists(st.sampled_from(WINDOWS), min_size=1, max_size=2, unique=True)))
    return Snapshot(
        t_ns=time.monotonic_ns(),
        wall_s=draw(_WALL_S),
        started_wall_s=draw(_WALL_S),
        build=Build(draw(_TEXT), draw(_TEXT), "python"),
        simulated=draw(st.booleans()),
        windows=windows,
        metrics_windows=windows[: draw(st.integers(0, len(windows)))],
        gpus=tuple(draw(_gpus(i)) for i in range(draw(st.integers(0, 2)))),
        servers=tuple(draw(_servers(i, windows)) for i in range(draw(st.integers(0, 2)))),
        ready=draw(st.booleans()),
        problems=tuple(draw(st.lists(_TEXT, max_size=2))),
    )
