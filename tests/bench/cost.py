"""What the daemon costs: 8 GPUs at 10 Hz, 8 vLLM servers at 1 Hz, a scrape each 15 s.

Everything is real but the boards: ``tokenwatt run`` is a process of its own, NVML is our own library behind the real binding, the servers
are a third process that speaks HTTP. CPU time inside the NVML library is counted by the library and taken off.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.nvml.board import Node, build

GPUS = SERVERS = 8
SETTLE_S = 15
MEASURE_S = 60
SCRAPE_S = 15

Row = tuple[str, float, str, str]

SERVER_PROCESS = """
import sys, time
from tokenwatt.demo.node import SERVICES, SimulatedNode, Service
from tokenwatt.demo.profiles import CHAT_8B, H100
from tokenwatt.demo.load import Shape
from tokenwatt.demo.server import HttpServers
services = [Service(f"s{i}", CHAT_8B, Shape(peak=64, burst_s=(8, 8)), (i,)) for i in range(8)]
node = SimulatedNode(1, origin_ns=time.monotonic_ns(), origin_wall_s=time.time(), services=services, boards=[H100] * 8)
http = HttpServers(node.servers, time.monotonic_ns)
print(*(http.url(s.name) for s in services), flush=True)
sys.stdin.read()
http.stop()
"""


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, all threads, to the nanosecond."""
    return sum(int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0]) for task in os.listdir(f"/proc/{pid}/task")) / 1e9


def rss_mib(pid: int) -> float:
    """Resident memory at its highest."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, body)
        return body
    finally:
        connection.close()


def _port(log: Path) -> int:
    for _ in range(200):
        if (found := re.search(r"Listening on http://127\.0\.0\.1:(\d+)", log.read_text())) is not None:
            return int(found[1])
        time.sleep(0.1)
    raise RuntimeError(log.read_text())


def measure(measure_s: float = MEASURE_S) -> list[Row]:
    """Rows of (name, value, unit, goal)."""
    with tempfile.TemporaryDirectory() as directory:
        return _measure(Path(directory), measure_s)


def _measure(directory: Path, measure_s: float) -> list[Row]:
    node = Node(directory / "nvml", *([(8000.0, 650_000), (8000.0, 110_000)] for _ in range(GPUS)))
    for board in node.boards:
        board.quantize(100)
    library = build(directory)
    servers = subprocess.Popen([sys.executable, "-c", SERVER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    log = directory / "log"
    try:
        assert servers.stdout is not None
        urls = servers.stdout.readline().split()
        settings = directory / "settings.yaml"
        settings.write_text("servers:\n" + "".join(f"  - {{name: s{i}, url: '{url}', gpus: [{i}]}}\n" for i, url in enumerate(urls)))
        command = [sys.executable, "-m", "tokenwatt", "run", "--config", str(settings), "--listen", "127.0.0.1:0"]
        with log.open("w") as out:
            daemon = subprocess.Popen(command, env=node.environment(library), stdout=out, stderr=out)
        try:
            port = _port(log)
            time.sleep(SETTLE_S)
            return _watch(daemon.pid, port, node, measure_s)
        finally:
            daemon.terminate()
            daemon.wait(10)
    finally:
        servers.communicate("", 10)


def _watch(pid: int, port: int, node: Node, measure_s: float) -> list[Row]:
    start, cpu_0, nvml_0, calls_0 = time.monotonic(), cpu_s(pid), node.cpu_ns, int(node.control.calls)
    next_scrape = start
    while time.monotonic() < start + measure_s:
        if time.monotonic() >= next_scrape:
            page = _get(port, "/metrics")
            next_scrape += SCRAPE_S
        time.sleep(0.2)
    wall = time.monotonic() - start
    spent, nvml, calls = cpu_s(pid) - cpu_0, (node.cpu_ns - nvml_0) / 1e9, int(node.control.calls) - calls_0
    threads = len(os.listdir(f"/proc/{pid}/task"))
    return [
        ("CPU beyond the time inside NVML", (spent - nvml) / wall * 100, "% of a core", "at most 1"),
        ("CPU inside the test's NVML", nvml / wall * 100, "% of a core", ""),
        ("NVML calls", calls / wall, "a second", ""),
        ("resident memory, highest", rss_mib(pid), "MiB", "at most 64"),
        ("threads", threads, "", ""),
        ("/metrics page", len(page), "bytes", ""),
    ]


if __name__ == "__main__":
    for name, value, unit, goal in measure():
        print(f"{name:50} {value:14,.2f} {unit:12} {goal}")
