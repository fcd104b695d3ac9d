"""The test library itself: what the other tests here stand on."""

from __future__ import annotations

import re
import time

import pynvml

from tests.energy.conftest import STEADY, MakeNode, MakeSource
from tests.nvml.board import HERE, Board
from tests.nvml.control import CALLS


def test_calls_are_in_the_order_of_the_header() -> None:
    macro = (HERE / "control.h").read_text().split("#define EACH_CALL(X)")[1].split("#define AS_ENUM")[0]
    assert tuple(re.findall(r"X\((\w+)\)", macro)) == CALLS


def _between(board: Board, counter_mj: int, before_ns: int, after_ns: int) -> bool:
    return board.counter_mj(before_ns) <= counter_mj <= board.counter_mj(after_ns)


def test_counter_is_the_integral_of_the_trace(make_node: MakeNode) -> None:
    node = make_node([(3, 700_000), (5, 80_000), (2.5, 455_123)], STEADY)
    board = node.boards[0]
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    for round_ in range(400):
        if round_ == 200:
            board.set_trace([(1, 1_000), (2, 900_000)])
        if round_ == 300:
            board.reset_counter(17)
        before_ns = time.monotonic_ns()
        counter_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        assert _between(board, counter_mj, before_ns, time.monotonic_ns())
    pynvml.nvmlShutdown()


def test_truth_goes_on_over_changes_of_trace_and_resets(make_node: MakeNode) -> None:
    board = make_node([(10, 100_000)]).boards[0]
    start_ns = board.entry.trace.start_ns
    board.set_trace([(10, 400_000)])
    changed_ns = board.entry.trace.start_ns
    board.reset_counter()
    later_ns = changed_ns + 10**9
    assert board.energy_pj(later_ns) == (changed_ns - start_ns) * 100_000 + 10**9 * 400_000
    assert board.energy_uj(changed_ns + 10**9) - board.energy_uj(changed_ns) in (400_000_000, 400_000_001)


def test_quantum_holds_the_counter_between_its_edges(make_node: MakeNode) -> None:
    board = make_node(STEADY).boards[0]
    board.quantize(50)
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    seen: dict[int, set[int]] = {}
    end_ns = time.monotonic_ns() + 170_000_000
    while (now_ns := time.monotonic_ns()) < end_ns:
        counter_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        if time.monotonic_ns() // 50_000_000 == now_ns // 50_000_000:
            seen.setdefault(now_ns // 50_000_000, set()).add(counter_mj)
    pynvml.nvmlShutdown()
    assert len(seen) >= 3
    assert all(len(values) == 1 for values in seen.values())


def test_calls_and_cpu_time_inside_are_counted(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY)
    source = make_source()
    source.open()
    before, before_ns = node.control.calls, node.cpu_ns
    thread_ns = time.thread_time_ns()
    for _ in range(100):
        source.read(node.boards[0].uuid, want_processes=False)
    assert node.control.calls - before == 100
    assert 0 < node.cpu_ns - before_ns < time.thread_time_ns() - thread_ns
