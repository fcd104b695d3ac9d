"""Boards behind a real NVML binding, servers that speak HTTP, and the daemon between them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.process import Daemon
from tests.nvml.board import Node, Steps, build
from tokenwatt.demo.load import Shape
from tokenwatt.demo.node import Service, SimulatedNode
from tokenwatt.demo.profiles import CHAT_8B, H100
from tokenwatt.demo.server import HttpServers

NAMES = ("chat", "code")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        if os.environ.get("CI"):
            pytest.fail("no C compiler: apt install build-essential")
        pytest.skip("no C compiler: apt install build-essential")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Two boards at steady power."""
    steady: list[Steps] = [[(1000, 300_000)], [(1000, 500_000)]]
    return Node(tmp_path / "nvml", *steady)


@pytest.fixture
def vllm() -> Iterator[HttpServers]:
    """Two servers under load, by the names in NAMES."""
    services = [Service(name, CHAT_8B, Shape(peak=64), (i,)) for i, name in enumerate(NAMES)]
    simulated = SimulatedNode(1, origin_ns=time.monotonic_ns(), origin_wall_s=time.time(), services=services, boards=[H100] * len(NAMES))
    servers = HttpServers(simulated.servers, time.monotonic_ns)
    yield servers
    servers.stop()


StartDaemon = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path, node: Node, library: Path) -> Iterator[StartDaemon]:
    """Start ``tokenwatt run`` on ``node`` with these settings. Its exit status is checked: an error in the meter is one."""
    started: list[Daemon] = []

    def run(settings: str, *words: str) -> Daemon:
        file = tmp_path / "settings.yaml"
        file.write_text(settings)
        started.append(Daemon(tmp_path, ["run", "--config", str(file), "--debug", *words], node.environment(library)))
        return started[-1]

    yield run
    for daemon in started:
        assert daemon.stop() == 0, daemon.log
