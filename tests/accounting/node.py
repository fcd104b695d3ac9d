"""A fake node: makes readings for a meter, with time and truth under the test's control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokenwatt.accounting.meter import Meter
from tokenwatt.accounting.publish import Clock, SnapshotMaker
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.snapshot import Build, ServerSnapshot, Snapshot, Window
from tokenwatt.types import (
    EnergyReading,
    EnergyTick,
    Gpu,
    GpuProcess,
    GpuState,
    GpuStates,
    Listener,
    SeriesKey,
    ServerFailure,
    ServerReading,
    Update,
)

SECOND = 1_000_000_000
TICK = SECOND // 10
START = 1_000 * SECOND

WINDOWS = tuple(Window(label, seconds * SECOND) for label, seconds in (("10s", 10), ("1m", 60), ("5m", 300)))


def gpu(number: int, limit_mw: int | None = 700_000) -> Gpu:
    return Gpu(f"GPU-{number:08d}", number, "Test GPU", "580.1", f"00000000:{number:02X}:00.0", limit_mw)


@dataclass
class FakeBoard:
    gpu: Gpu
    power_mw: int = 100_000
    energy_mj: int = 5_000_000
    counter: bool = True
    error: str | None = None
    lost: bool = False
    processes: tuple[int, ...] | None = None
    sm_utilization: Mapping[int, int] | None = None
    truth_uj: int = 0

    def pass_time(self, ns: int) -> None:
        uj = self.power_mw * ns // 1_000_000
        self.truth_uj += uj
        self.energy_mj += uj // 1000

    def reading(self, t_ns: int) -> EnergyReading:
        if self.error is not None:
            return EnergyReading(self.gpu.uuid, t_ns, error=self.error, lost=self.lost)
        return EnergyReading(
            self.gpu.uuid, t_ns, self.energy_mj if self.counter else None, self.power_mw, self.power_mw, self.sm_utilization
        )

    def state(self, t_ns: int) -> GpuState:
        processes = None if self.processes is None else tuple(GpuProcess(pid, None) for pid in self.processes)
        return GpuState(self.gpu, t_ns, processes=processes)


@dataclass
class FakeServer:
    name: str
    model: str = "m"
    counters: dict[SeriesKey, int] = field(default_factory=dict)
    running: int = 0
    process_start: float | None = 1.0
    """None: a server of several processes, that does not tell."""
    process_start_ns: int | None = None
    listener: Listener | None = None
    cached: str = "known"
    update: Update = "step"
    in_flight: dict[str, int] | None = None

    def make(self, generation: int = 0, computed: int = 0, cached: int = 0, model: str | None = None, engine: str = "0") -> None:
        labels = f'engine="{engine}"'
        for kind, count in (("generation", generation), ("prompt_computed", computed), ("prompt_cached", cached)):
            key = SeriesKey(model or self.model, kind, labels)  # type: ignore[arg-type]
            self.counters[key] = self.counters.get(key, 0) + count

    def restart(self, process_start: float | None = None, process_start_ns: int | None = None) -> None:
        self.counters = dict.fromkeys(self.counters, 0)
        self.process_start, self.process_start_ns = process_start, process_start_ns

    def reading(self, t_ns: int) -> ServerReading:
        return ServerReading(
            self.name,
            t_ns,
            "vllm",
            dict(self.counters),
            self.running,
            0,
            self.process_start,
            self.process_start_ns,
            "0.33.0",
            self.update,
            "known" if self.cached == "known" else "unknown",
            self.listener,
            in_flight=self.in_flight,
        )


class Node:
    """Boards and servers in front of a real meter. Time moves only by ``run``."""

    def __init__(
        self, boards: int = 1, servers: Sequence[ServerSpec] = (), parents: Mapping[int, tuple[int, ...]] | None = None, **board: object
    ) -> None:
        self.t_ns = START
        self.boards = [FakeBoard(gpu(n), **board) for n in range(boards)]  # type: ignore[arg-type]
        self.servers = {spec.name: FakeServer(spec.name) for spec in servers}
        for server in self.servers.values():
            server.make()
        lineage = parents or {}
        self.meter = Meter(servers, lambda pid: lineage.get(pid, ()), power_period_ns=TICK, started_ns=START)
        self.maker = SnapshotMaker(
            self.meter,
            build=Build("0", "3", "c"),
            simulated=True,
            windows=WINDOWS,
            metrics_windows=WINDOWS,
            tokens_period_ns=SECOND,
            started_wall_s=1e9,
        )
        self.meter.gpus_found(board.gpu for board in self.boards)

    def states(self) -> None:
        self.meter.gpu_states(GpuStates(tuple(board.state(self.t_ns) for board in self.boards if not board.lost)))

    def tick(self, ns: int = TICK) -> None:
        self.t_ns += ns
        for board in self.boards:
            board.pass_time(ns)
        self.meter.energy_tick(EnergyTick(tuple(board.reading(self.t_ns) for board in self.boards)))

    def run(self, seconds: float, read: Sequence[str] | None = None, generation_a_second: Mapping[str, int] | None = None) -> None:
        """Let time pass: ticks at 10 Hz; at each whole second tokens are made and the servers named (else all) are read."""
        for _ in range(round(seconds)):
            for _ in range(10):
                self.tick()
            for name, count in (generation_a_second or {}).items():
                self.servers[name].make(generation=count)
            for name in self.servers if read is None else read:
                self.read(name)
            self.meter.each_second(self.t_ns)

    def read(self, name: str, t_ns: int | None = None) -> None:
        self.meter.server_reading(self.servers[name].reading(self.t_ns if t_ns is None else t_ns))

    def fail(self, name: str, *, gone: bool = False, rejected: bool = False) -> None:
        self.meter.server_failure(ServerFailure(name, self.t_ns, "it does not answer", gone, rejected))

    def snapshot(self) -> Snapshot:
        return self.maker.take(Clock(self.t_ns, 1e9 + self.t_ns / 1e9))

    def server(self, name: str) -> ServerSnapshot:
        return next(server for server in self.snapshot().servers if server.name == name)

    def measured_uj(self, board: int) -> int:
        energy_uj = self.snapshot().gpus[board].energy_uj
        assert energy_uj is not None
        return energy_uj

    def unattributed_uj(self, board: int) -> int:
        energy_uj = self.snapshot().gpus[board].unattributed_uj
        assert energy_uj is not None
        return energy_uj

    def energy_uj(self, name: str) -> dict[str, int]:
        """All models of a server by state."""
        out = {"active": 0, "idle": 0, "unobserved": 0}
        for model in self.server(name).models:
            for state, uj in model.energy_uj.items():
                out[state] += uj
        return out

    def tokens(self, name: str) -> dict[str, int]:
        out: dict[str, int] = {}
        for model in self.server(name).models:
            for kind, count in model.tokens.items():
                out[kind] = out.get(kind, 0) + count
        return out


def assert_conserved(snapshot: Snapshot) -> None:
    """Rule 5 on a snapshot alone, to the microjoule."""
    measured = sum(g.energy_uj or 0 for g in snapshot.gpus)
    owned = sum(uj for s in snapshot.servers for m in s.models for uj in m.energy_uj.values())
    unattributed = sum(g.unattributed_uj or 0 for g in snapshot.gpus)
    pending = sum(s.pending_uj for s in snapshot.servers)
    assert measured == owned + unattributed + pending
