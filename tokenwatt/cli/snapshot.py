"""``tokenwatt snapshot``: one reading of this node, without a daemon."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from typing import TYPE_CHECKING

from tokenwatt.cli.common import add_settings_arguments, load_settings
from tokenwatt.cli.errors import Failure
from tokenwatt.energy.source import EnergySource, SourceUnavailable
from tokenwatt.snapshot import ServerSnapshot, Snapshot

if TYPE_CHECKING:
    from tokenwatt.settings.model import Settings

GIVE_UP_S = 10.0

FIND_SERVERS_S = 3.0
"""What it takes to find the servers that nobody named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``snapshot``."""
    add_settings_arguments(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON: status, gpus, servers, efficiency")
    form.add_argument("--prom", action="store_true", help="as Prometheus text")


def main(args: argparse.Namespace) -> int:
    """Measure for some seconds and print."""
    from tokenwatt.energy.nvml import NvmlSource

    loaded = load_settings(args, log_level="ERROR")
    snapshot = take(NvmlSource(), loaded.settings)
    if args.json:
        from tokenwatt.export.views import live

        print(live(snapshot, snapshot.t_ns).model_dump_json(indent=2))
    elif args.prom:
        from tokenwatt.export.prometheus import render

        sys.stdout.write(render(snapshot).decode())
    else:
        print(table(snapshot))
    return 0


def take(source: EnergySource, settings: Settings) -> Snapshot:
    """Run the pipeline until every server that answers has closed an interval and every board told its figures, and stop it.

    Raises:
        Failure: no GPU, or nothing was measured in time.
    """
    from tokenwatt.pipeline import Pipeline

    taken: list[Snapshot] = []
    done = threading.Event()
    look_until_s = time.monotonic() + (FIND_SERVERS_S if settings.discovery.local and not source.simulated else 0)

    def look(snapshot: Snapshot) -> None:
        taken.append(snapshot)
        # The first may come before there is any energy.
        if len(taken) > 1 and _complete(snapshot) and time.monotonic() >= look_until_s:
            done.set()

    pipeline = Pipeline(source, settings, on_snapshot=look, on_failure=lambda _: done.set())
    try:
        pipeline.start()
        done.wait(GIVE_UP_S)
    except SourceUnavailable as e:
        raise Failure(str(e)) from None
    finally:
        pipeline.stop()
        source.close()
    if not taken or not taken[-1].gpus:
        raise Failure(f"Nothing was measured in {GIVE_UP_S:.0f} s.")
    return taken[-1]


def _complete(snapshot: Snapshot) -> bool:
    if not snapshot.ready or any(gpu.up and gpu.power_limit_mw is None and gpu.temperature_celsius is None for gpu in snapshot.gpus):
        return False
    return all(not server.up or _has_interval(server) for server in snapshot.servers)


def _has_interval(server: ServerSnapshot) -> bool:
    return any(window.coverage_ratio > 0 for window in server.windows.values())


def table(snapshot: Snapshot) -> str:
    """For people: a line a board, a line a server, and what is wrong."""
    lines = [f"{'GPU':<4} {'name':<32} {'W':>7} {'limit':>7} {'busy':>5} {'C':>4}  served"]
    for g in snapshot.gpus:
        served = ", ".join(server for server, _, _ in g.holders if server is not None) or "-"
        lines.append(
            f"{g.gpu.index:<4} {g.gpu.name:<32.32} {_figure(g.power_mw, 1e-3):>7} {_figure(g.power_limit_mw, 1e-3):>7} "
            f"{_figure(g.utilization_ratio, 100, '%'):>5} {_figure(g.temperature_celsius):>4}  {served if g.up else g.reason}"
        )
    head = f"{'server':<20} {'engine':<8} {'version':<10} {'running':>7} {'waiting':>7}  GPUs"
    lines += ["", head if snapshot.servers else "No server was found, and the settings name none."]
    for s in snapshot.servers:
        gpus = ", ".join(str(index) for _, index, _ in s.gpus) or "-"
        lines.append(
            f"{s.name:<20} {s.engine:<8} {s.version:<10} {_figure(s.running):>7} {_figure(s.waiting):>7}  {gpus if s.up else s.reason}"
        )
    if snapshot.problems:
        lines += ["", *snapshot.problems]
    return "\n".join(line.rstrip() for line in lines)


def _figure(value: float | None, factor: float = 1, unit: str = "") -> str:
    return "-" if value is None else f"{value * factor:.0f}{unit}"
