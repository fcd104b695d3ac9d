"""``tokenwatt demo``: the whole thing on a simulated node."""

from __future__ import annotations

import argparse

from tokenwatt.cli.common import add_settings_arguments, load_settings
from tokenwatt.cli.daemon import serve
from tokenwatt.settings.servers import ServerSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``demo``."""
    add_settings_arguments(parser)
    parser.add_argument("--seed", type=int, default=1, help="another number is another history (default: 1)")
    parser.add_argument("--debug", action="store_true", help="log more, and check at each snapshot that no microjoule is lost")


def main(args: argparse.Namespace) -> int:
    """Simulate boards and servers, and measure them as real ones are measured. Servers in the settings are left out."""
    from tokenwatt.demo.node import start_demo

    loaded = load_settings(args, log_level="DEBUG" if args.debug else "WARNING")
    demo = start_demo(args.seed)
    try:
        servers = tuple(ServerSettings(name=s.name, url=s.url, engine="vllm", gpus=s.gpus) for s in demo.servers)
        return serve(demo.source, loaded.settings.model_copy(update={"servers": servers}), debug=args.debug, on_listening=_greet)
    finally:
        demo.stop()


def _greet(url: str) -> None:
    print(f"SIMULATED: a made-up node of 8 GPUs and 3 vLLM servers, measured for real. No figure here is of a machine.\n\n"
          f"  {url}/metrics\n  {url}/api/v1/efficiency?window=1m\n  {url}/docs\n\nStop it with Ctrl-C.", flush=True)  # fmt: skip
