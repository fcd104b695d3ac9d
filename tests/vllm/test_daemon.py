"""The whole daemon between a real vLLM and boards of the test's NVML: what it publishes is what vLLM's ``usage`` fields add up to."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.process import Daemon, wait_for
from tests.nvml.board import Node, build
from tests.vllm.server import RealVllm, Tokens
from tokenwatt.procfs import ancestors
from tokenwatt.types import KINDS

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

LONG = " ".join(f"watt {n} lasts {n * 7 % 101} of them" for n in range(40))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Two boards. vLLM's worker has a process on the first, as it would on a GPU."""
    assert shutil.which("cc") is not None
    return Node(tmp_path / "nvml", [(1000, 300_000)], [(1000, 100_000)])


@pytest.fixture
def daemon(vllm: RealVllm, node: Node, tmp_path: Path) -> Iterator[Daemon]:
    node.boards[0].set_processes((_worker(vllm.pid), 2**30))
    settings = tmp_path / "settings.yaml"
    fast = "sampling: {tokens: 200ms}\nwindows: [2s, 1m]\ndiscovery: {local: false}\n"
    settings.write_text(f"{fast}servers:\n  - {{name: tiny, url: '{vllm.url}'}}\n")
    command = ["run", "--config", str(settings), "--debug"]
    daemon = Daemon(tmp_path, command, node.environment(build(tmp_path)))
    try:
        yield daemon.ready()
    finally:
        assert daemon.stop() == 0, daemon.log


def _worker(listener: int) -> int:
    """The process that would hold the GPU: the one furthest below the listener."""
    lineages = [ancestors(int(pid)) for pid in os.listdir("/proc") if pid.isdigit()]
    below = [lineage for lineage in lineages if listener in lineage]
    return max(below, key=len)[0]


def published(daemon: Daemon) -> Tokens:
    counts = {kind: daemon.value("tokens_total", server="tiny", model="tiny", kind=kind) or 0 for kind in KINDS}
    return +Counter({kind: int(count) for kind, count in counts.items()})


def test_tokens_published_are_those_of_usage_through_a_restart(vllm: RealVllm, daemon: Daemon, node: Node) -> None:
    usage = vllm.stream("piece by piece", max_tokens=50)
    with ThreadPoolExecutor(4) as clients:
        for tokens in clients.map(lambda n: vllm.stream(f"request {n} of many", max_tokens=20 + 9 * n), range(6)):
            usage += tokens
    for n in range(3):
        usage += vllm.complete(f"{LONG} and {n}", max_tokens=5)
    assert usage["prompt_cached"] > 0
    wait_for(lambda: published(daemon) == +usage, why=lambda: f"{published(daemon)} is not {usage}")
    # Its worker's process tells which board it holds; the other one is nobody's.
    assert daemon.value("server_gpu_info", server="tiny", gpu="0", method="ancestry") == 1
    assert daemon.value("server_gpu_info", server="tiny", gpu="1") is None
    assert daemon.value("unattributed_energy_joules_total", gpu="1") == daemon.value("gpu_energy_joules_total", gpu="1")

    vllm.stop()
    wait_for(lambda: daemon.value("server_up", server="tiny") == 0)
    before = daemon.value("energy_joules_total", server="tiny")
    vllm.start()
    node.boards[0].entry.process_count = 0
    node.boards[0].set_processes((_worker(vllm.pid), 2**30))
    wait_for(lambda: daemon.value("server_up", server="tiny") == 1)
    assert daemon.value("energy_joules_total", server="tiny") == pytest.approx(before, abs=60)  # the load of the model is nobody's
    usage += vllm.stream("after the restart", max_tokens=40)
    wait_for(lambda: published(daemon) == +usage, why=lambda: f"{published(daemon)} is not {usage}")
    assert daemon.value("server_resets_total", server="tiny") == 1
    (item,) = daemon.json("/api/v1/efficiency?window=2s")["items"]
    assert (item["server"], item["model"], item["cached"]) == ("tiny", "tiny", "known")


def test_the_ratio_is_generated_tokens_over_the_boards_joules(vllm: RealVllm, daemon: Daemon) -> None:
    with ThreadPoolExecutor(1) as client:
        done = client.submit(vllm.stream, "a long answer", max_tokens=600)
        value = wait_for(lambda: daemon.value("tokens_per_joule", server="tiny", tokens="generation", window="2s"))
        item = wait_for(lambda: told(daemon.json("/api/v1/efficiency?window=2s")["items"]))
        done.result()
    assert item["power_w"] == pytest.approx(300, rel=0.01)
    assert value == pytest.approx(item["tokens_per_second"]["generation"] / 300, rel=0.5)


def told(items: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The only item, where it has figures: beside a server that takes both cores a reading may come too late for them."""
    (item,) = items
    return item if item["power_w"] is not None and item["tokens_per_joule"] else None
