"""``tokenwatt run``: the daemon."""

from __future__ import annotations

import argparse
import logging

from tokenwatt.cli.common import add_settings_arguments, load_settings
from tokenwatt.cli.daemon import serve

log = logging.getLogger("tokenwatt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``run``."""
    add_settings_arguments(parser)
    parser.add_argument("--wait-for-gpu", action="store_true", help="start without a GPU, and look for one every 5 s")
    parser.add_argument("--debug", action="store_true", help="log more, and check at each snapshot that no microjoule is lost")


def main(args: argparse.Namespace) -> int:
    """Measure this node until SIGTERM."""
    from tokenwatt.energy.nvml import NvmlSource

    loaded = load_settings(args, log_level="DEBUG" if args.debug else "INFO")

    def listening(_: str) -> None:
        if not loaded.settings.servers and not loaded.settings.discovery.local:
            log.warning(
                "The settings name no server, and discovery.local is false: all energy is unattributed. "
                'Name one: servers: [{url: "http://127.0.0.1:8000"}]'
            )

    return serve(NvmlSource(), loaded.settings, wait_for_gpu=args.wait_for_gpu, debug=args.debug, on_listening=listening)
