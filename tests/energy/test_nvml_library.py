"""Libraries and bindings that are missing, broken, foreign or old: each in a process of its own, which finds them as users' do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.nvml.board import HERE, LIBRARY, Node, build

ROOT = HERE.parent.parent
ENERGY_CALLS = ("nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")


def read_in_process(node: Node, library: Path, *, first_on_path: Path | None = None) -> dict[str, Any]:
    environment = {**node.environment(library), "PYTHONPATH": f"{first_on_path}:{ROOT}" if first_on_path else str(ROOT)}
    command = [sys.executable, "-m", "tests.energy.reading"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture
def node(tmp_path: Path, compiler: None) -> Node:
    node = Node(tmp_path / "node", [(10, 300_000)], [(10, 300_000)])
    node.boards[0].entry.event_reasons = 0x4
    node.boards[0].set_processes((100, None), sm_percent=30)
    return node


def without(tmp_path: Path, calls: Iterable[str]) -> Path:
    return build(tmp_path, without=calls)


def test_everything_is_there(node: Node, library: Path) -> None:
    answer = read_in_process(node, library)
    assert [r["power_mw"] for r in answer["readings"]] == [300_000, 300_000]
    assert [r["sm_utilization"] for r in answer["readings"]] == [{"100": 30}, {}]
    assert (answer["state"], answer["events"]) == ({"memory": 10 << 30, "temperature": 40}, ["sw_power_cap"])
    assert node.control.references == 0


@pytest.mark.parametrize(
    ("missing", "energy", "power"),
    [
        (["nvmlDeviceGetFieldValues"], True, 300_000),
        (["nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEnergyConsumption"], False, 300_000),
        (["nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage"], True, None),
    ],
)
def test_calls_for_energy_that_the_library_lacks(node: Node, tmp_path: Path, missing: list[str], energy: bool, power: int | None) -> None:
    for reading in read_in_process(node, without(tmp_path, missing))["readings"]:
        assert (reading["error"], reading["energy_mj"] is not None, reading["power_mw"]) == (None, energy, power)


def test_library_without_any_call_for_energy(node: Node, tmp_path: Path) -> None:
    for reading in read_in_process(node, without(tmp_path, ENERGY_CALLS))["readings"]:
        assert reading["error"] == "the GPU tells neither its energy nor its power"


def test_other_calls_that_the_library_lacks(node: Node, tmp_path: Path) -> None:
    calls = ["nvmlDeviceGetProcessUtilization", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperature"]
    calls += ["nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetMPSComputeRunningProcesses_v3"]
    answer = read_in_process(node, without(tmp_path, calls))
    assert [r["sm_utilization"] for r in answer["readings"]] == [None, None]
    assert (answer["state"], answer["events"]) == ({"memory": 11 << 30, "temperature": 40}, ["sw_power_cap"])


def test_no_library(node: Node, tmp_path: Path) -> None:
    # An empty file in its place, so that a machine with the driver has none either: dlopen ends its search there.
    (tmp_path / LIBRARY).touch()
    sentence = read_in_process(node, tmp_path / LIBRARY)["unavailable"]
    assert sentence.startswith("the NVIDIA library libnvidia-ml.so.1 was not found")
    assert "\n" not in sentence


def test_no_driver(node: Node, library: Path) -> None:
    node.unload_driver()
    assert "modprobe nvidia" in read_in_process(node, library)["unavailable"]


def test_foreign_module_named_pynvml(node: Node, library: Path, tmp_path: Path) -> None:
    (tmp_path / "pynvml.py").write_text("def nvmlInit(): pass\n")
    assert "is not that of nvidia-ml-py" in read_in_process(node, library, first_on_path=tmp_path)["unavailable"]


def test_importing_the_package_loads_no_binding() -> None:
    command = "import sys, tokenwatt.energy, tokenwatt.energy.nvml, tokenwatt.energy.sampler; sys.exit('pynvml' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=True, timeout=30)
