"""The snapshot: what the books say at one instant, in the form that views read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tokenwatt.accounting.boards import BoardBook
from tokenwatt.accounting.meter import Meter
from tokenwatt.accounting.servers import ServerBook
from tokenwatt.accounting.windows import figures, server_window, spans
from tokenwatt.snapshot import Build, GpuSnapshot, ModelSnapshot, ServerSnapshot, Snapshot, Window
from tokenwatt.types import Holder, Method, Share


@dataclass(frozen=True, slots=True)
class Clock:
    """One instant on both clocks."""

    t_ns: int
    wall_s: float

    def wall_of(self, t_ns: int) -> float:
        """Wall time of an instant of the monotonic clock, by how long ago it was."""
        return self.wall_s - (self.t_ns - t_ns) / 1e9


class SnapshotMaker:
    """Takes snapshots of a meter."""

    def __init__(
        self,
        meter: Meter,
        *,
        build: Build,
        simulated: bool,
        windows: tuple[Window, ...],
        metrics_windows: tuple[Window, ...],
        tokens_period_ns: int,
        started_wall_s: float,
    ) -> None:
        self._meter = meter
        self._build = build
        self._simulated = simulated
        self._windows = windows
        self._metrics_windows = metrics_windows
        self._period_ns = tokens_period_ns
        self._started_wall_s = started_wall_s

    def take(self, now: Clock, *, notices: Iterable[str] = ()) -> Snapshot:
        """Everything at once. ``notices``: what the caller knows to be wrong beside the books."""
        meter = self._meter
        boards = sorted(meter.boards.values(), key=lambda board: board.gpu.index)
        measured = any(board.booked_ns is not None for board in boards)
        pending_uj, held = meter.pending_uj(), meter.held_gpus()
        return Snapshot(
            t_ns=now.t_ns,
            wall_s=now.wall_s,
            started_wall_s=self._started_wall_s,
            build=self._build,
            simulated=self._simulated,
            windows=self._windows,
            metrics_windows=self._metrics_windows,
            gpus=tuple(_gpu(board, meter.holders.get(board.gpu.uuid, ()), now) for board in boards),
            servers=tuple(self._server(server, now, pending_uj[name], tuple(held[name])) for name, server in meter.servers.items()),
            ready=measured and all(server.asked for name, server in meter.servers.items() if meter.specs[name].configured),
            problems=tuple(self._problems(notices, held)),
        )

    def _server(self, book: ServerBook, now: Clock, pending_uj: int, gpus: tuple[tuple[str, int, Method], ...]) -> ServerSnapshot:
        spec, reading = self._meter.specs[book.name], book.reading
        trailing = spans(book, self._windows, now.t_ns, self._period_ns)
        models = tuple(
            ModelSnapshot(
                model=name,
                energy_uj=dict(model.energy_uj) if book.held else {},
                tokens=dict(model.tokens),
                windows={at.window.label: figures(book, model, at, now.wall_of) for at in trailing},
            )
            for name, model in book.models.items()
        )
        up = book.trouble is None and reading is not None
        needed_ns = book.resolution.needed_ns
        return ServerSnapshot(
            name=book.name,
            url=spec.url,
            engine=reading.engine if reading is not None else spec.engine,
            version=reading.version if reading is not None else "",
            up=up,
            reason=book.trouble or (None if up else "It was not asked yet."),
            update=reading.update if reading is not None else None,
            cached=reading.cached if reading is not None else None,
            scope="partial" if spec.partial else "whole",
            group=spec.group,
            asleep=reading.asleep if up and reading is not None else None,
            resolution_s=needed_ns / 1e9 if needed_ns is not None else None,
            running=reading.running if up and reading is not None else None,
            waiting=reading.waiting if up and reading is not None else None,
            last_sample_wall_s=now.wall_of(reading.t_ns) if reading is not None else None,
            scrape_duration_s=reading.duration_ns / 1e9 if reading is not None else None,
            scrape_bytes=reading.size_bytes if reading is not None else None,
            resets=book.counters.resets,
            rejected_readings=book.counters.rejected,
            pending_uj=pending_uj,
            gpus=gpus,
            models=models,
            windows={at.window.label: server_window(book, at, (model.windows[at.window.label] for model in models)) for at in trailing},
        )

    def _problems(self, notices: Iterable[str], held: Mapping[str, Sequence[object]]) -> Iterable[str]:
        yield from notices
        for board in self._meter.boards.values():
            if board.last_reading is not None and board.last_reading.error is not None:
                yield f"GPU {board.gpu.index} ({board.gpu.uuid}): {board.last_reading.error}"
        unknown = self._meter.unknown_gpus()
        for server in self._meter.servers.values():
            stopped = server.gone_ns is not None and not self._meter.specs[server.name].configured
            if server.trouble is not None and not stopped:
                yield f"Server {server.name}: {server.trouble}"
            for entry in unknown[server.name]:
                yield f"Server {server.name}: its settings name GPU {entry}, and this node has no such GPU."
            if server.present and not held[server.name]:
                yield (
                    f"Server {server.name}: no GPU is known to serve it, so its energy cannot be known. "
                    f"Name its GPUs in the settings, servers[].gpus."
                )


def _gpu(board: BoardBook, holders: tuple[Holder, ...], now: Clock) -> GpuSnapshot:
    reading, state = board.last_reading, board.state
    up = board.up
    told = state if up else None
    return GpuSnapshot(
        gpu=board.gpu,
        up=up,
        reason=reading.error if reading is not None else None,
        source=board.counter.source,
        scope=board.gpu.scope,
        energy_uj=board.counter.total_uj if board.booked_ns is not None else None,
        unattributed_uj=board.unattributed_uj if board.booked_ns is not None else None,
        last_sample_wall_s=now.wall_of(board.booked_ns) if board.booked_ns is not None else None,
        resets=board.counter.resets,
        rejected_readings=board.counter.rejected,
        samples_missed=board.missed,
        agreement_ratio=board.agreement(),
        power_mw=reading.power_mw if reading is not None else None,
        power_instant_mw=reading.power_instant_mw if reading is not None else None,
        power_limit_mw=told.power_limit_mw if told is not None else None,
        power_statistics=board.statistics() if up else None,
        utilization_ratio=told.utilization_percent / 100 if told is not None and told.utilization_percent is not None else None,
        memory_used_bytes=told.memory_used_bytes if told is not None else None,
        memory_total_bytes=told.memory_total_bytes if told is not None else None,
        temperature_celsius=told.temperature_celsius if told is not None else None,
        sm_clock_hz=told.sm_clock_hz if told is not None else None,
        clock_events=told.clock_events if told is not None else None,
        processes=told.processes if told is not None else None,
        holders=_shares(holders, board.shares),
        split=board.split,
    )


def _shares(holders: tuple[Holder, ...], shares: tuple[Share, ...]) -> tuple[tuple[str | None, Method | None, float], ...]:
    total = sum(share.weight for share in shares)
    methods = {holder.server: holder.method for holder in holders}
    return tuple((share.server, methods.get(share.server), share.weight / total) for share in shares)
