"""The test library in this process, and nodes of boards for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nvml.board import CONTROL_VARIABLE, Node, Steps, build, load
from tokenwatt.energy.nvml import NvmlSource

MakeNode = Callable[..., Node]
MakeSource = Callable[..., NvmlSource]

STEADY: Steps = [(10, 300_000)]


@pytest.fixture(scope="session")
def compiler() -> None:
    if shutil.which("cc") is None:
        if os.environ.get("CI"):
            pytest.fail("no C compiler: apt install build-essential")
        pytest.skip("no C compiler: apt install build-essential")


@pytest.fixture(scope="session")
def library(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test library, which nvidia-ml-py of this process uses from here on."""
    path = build(tmp_path_factory.mktemp("nvml"))
    load(path)
    return path


@pytest.fixture
def make_node(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeNode]:
    nodes: list[Node] = []

    def make(*steps: Steps) -> Node:
        node = Node(tmp_path / f"node{len(nodes)}", *steps)
        monkeypatch.setenv(CONTROL_VARIABLE, str(node.path))
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        assert node.control.references == 0, "NVML was not shut down as often as it was initialised"


@pytest.fixture
def make_source(make_node: MakeNode) -> Iterator[MakeSource]:
    """Sources that are closed before their node is looked at."""
    sources: list[NvmlSource] = []

    def make(**options: float) -> NvmlSource:
        sources.append(NvmlSource(**options))
        return sources[-1]

    yield make
    for source in sources:
        source.close()
