"""What NvmlSource reads from boards that are well, over the real binding."""

from __future__ import annotations

import time

import pytest

from tests.energy.conftest import STEADY, MakeNode, MakeSource
from tests.nvml.board import ENERGY, NOT_SUPPORTED, POWER_AVERAGE, POWER_INSTANT, Board
from tokenwatt.energy.nvml import NvmlSource
from tokenwatt.energy.nvml_board import field_number
from tokenwatt.types import EnergyReading, GpuProcess

INVALID_ARGUMENT, TIMEOUT = 2, 10


def read(source: NvmlSource, board: Board, *, want_processes: bool = False) -> EnergyReading:
    return source.read(board.uuid, want_processes=want_processes)


def test_open_tells_what_the_boards_are(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY, STEADY)
    node.boards[1].entry.name = b"NVIDIA GH200 480GB"
    first, second = make_source().open()
    assert (first.uuid, first.index, first.name) == (node.boards[0].uuid, 0, "NVIDIA H100 80GB HBM3")
    assert (first.driver, first.pci_bus_id, first.power_limit_max_mw, first.scope) == ("580.65.06", "00000000:01:00.0", 700_000, "gpu")
    assert (second.index, second.pci_bus_id, second.scope) == (1, "00000000:02:00.0", "module")


def test_reading_holds_counter_average_and_instant(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node([(100, 200_000), (10_000, 600_000)])
    board, source = node.boards[0], make_source()
    source.open()
    # 600 W after 100 ms at 200 W: the mean over a second lags behind the instant value.
    while time.monotonic_ns() < board.entry.trace.start_ns + 150_000_000:
        time.sleep(0.01)
    reading = read(source, board)
    assert reading.power_instant_mw == 600_000
    assert reading.power_mw is not None
    assert 300_000 <= reading.power_mw < 580_000
    assert (reading.error, reading.lost, reading.sm_utilization) == (None, False, None)


def test_counter_deltas_are_the_trace_integral(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node([(7, 90_000), (3, 690_000)]).boards[0]
    source = make_source()
    source.open()
    for _ in range(300):
        before_ns = time.monotonic_ns()
        reading = read(source, board)
        after_ns = time.monotonic_ns()
        assert before_ns <= reading.t_ns <= after_ns
        assert reading.energy_mj is not None
        assert board.counter_mj(before_ns) <= reading.energy_mj <= board.counter_mj(after_ns)


def test_one_call_a_read(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY)
    source = make_source()
    source.open()
    before = node.control.calls
    for _ in range(10):
        read(source, node.boards[0])
    assert node.control.calls - before == 10


@pytest.mark.parametrize("code", [NOT_SUPPORTED, INVALID_ARGUMENT])
def test_field_that_the_driver_does_not_know_is_asked_for_once(make_node: MakeNode, make_source: MakeSource, code: int) -> None:
    node = make_node(STEADY)
    board, source = node.boards[0], make_source()
    board.field(POWER_AVERAGE, code=code)
    source.open()
    assert read(source, board).power_mw == 300_000
    board.field(POWER_AVERAGE, value=123)  # nobody looks
    assert read(source, board).power_mw == 300_000
    assert node.calls("nvmlDeviceGetPowerUsage") == 0


def test_power_falls_back_to_the_old_call(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY)
    board, source = node.boards[0], make_source()
    board.field(POWER_AVERAGE, code=INVALID_ARGUMENT)
    board.field(POWER_INSTANT, code=INVALID_ARGUMENT)
    source.open()
    reading = read(source, board)
    assert (reading.power_mw, reading.power_instant_mw) == (300_000, None)
    assert reading.energy_mj is not None


def test_energy_falls_back_to_the_old_call(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    board.field(ENERGY, code=NOT_SUPPORTED)
    source.open()
    for _ in range(3):
        before_ns = time.monotonic_ns()
        reading = read(source, board)
        after_ns = time.monotonic_ns()
        assert reading.energy_mj is not None
        assert board.counter_mj(before_ns) <= reading.energy_mj <= board.counter_mj(after_ns)
        assert before_ns <= reading.t_ns <= after_ns


def test_board_without_a_counter_tells_power_only(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY)
    board, source = node.boards[0], make_source()
    board.without_counter()
    source.open()
    for _ in range(3):
        reading = read(source, board)
        assert (reading.energy_mj, reading.power_mw, reading.error) == (None, 300_000, None)
    assert board.calls("nvmlDeviceGetTotalEnergyConsumption") == 1


def test_passing_error_of_a_field_is_one_figure_missing(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    source.open()
    for code in (TIMEOUT, NOT_SUPPORTED, INVALID_ARGUMENT):  # it worked before: none of them is for good
        assert read(source, board).energy_mj is not None
        board.field(ENERGY, code=code)
        reading = read(source, board)
        assert (reading.energy_mj, reading.power_mw, reading.error) == (None, 300_000, None)
        board.field(ENERGY)
    assert read(source, board).energy_mj is not None
    assert board.calls("nvmlDeviceGetTotalEnergyConsumption") == 0


def test_passing_error_at_the_first_read_is_not_for_good(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    board.field(ENERGY, code=TIMEOUT)
    board.fail("nvmlDeviceGetFieldValues", TIMEOUT, times=1)
    source.open()
    failed = read(source, board)
    assert (failed.error, failed.lost, failed.energy_mj, failed.power_mw) == ("NVML answers error 10 (Timeout)", False, None, None)
    assert read(source, board).power_mw == 300_000
    board.field(ENERGY)
    assert read(source, board).energy_mj is not None


def test_power_that_is_not_available_is_none(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    source.open()
    board.field(POWER_AVERAGE, value=2**32 - 1)
    board.field(POWER_INSTANT, value=2**32 - 1)
    reading = read(source, board)
    assert (reading.power_mw, reading.power_instant_mw) == (None, None)
    assert reading.energy_mj is not None
    board.field(POWER_INSTANT)
    assert read(source, board).power_mw == 300_000


@pytest.mark.parametrize("value_type", [0, 1, 2, 3, 4, 5])
def test_value_is_read_by_its_type(make_node: MakeNode, make_source: MakeSource, value_type: int) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    board.field(ENERGY, type_=value_type, value=2_000_000_000)
    source.open()
    assert read(source, board).energy_mj == 2_000_000_000


@pytest.mark.parametrize(
    ("value_type", "raw", "number"),
    [
        (3, 2**64 - 1, None),
        (3, 2**32 - 1, 2**32 - 1),  # 4.3 MJ of a counter, not "not available"
        (1, 0xFEFEFEFE_00000007, 7),
        (4, 2**64 - 5, None),
        (5, 0xFEFEFEFE_FFFFFFFB, None),
        (6, 0xFEFEFEFE_FEFE0009, 9),
        (0, 0x7FF8000000000000, None),  # NaN
        (7, 5, None),
    ],
)
def test_number_in_a_field(value_type: int, raw: int, number: int | None) -> None:
    assert field_number(value_type, raw) == number


def test_board_that_tells_nothing_says_so(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    for call in ("nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"):
        board.fail(call, NOT_SUPPORTED)
    source.open()
    reading = read(source, board)
    assert (reading.error, reading.lost) == ("the GPU tells neither its energy nor its power", False)


def test_state(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    board.entry.event_reasons = 0x4 | 0x80 | 0x8000
    board.set_processes((100, 5 << 30), (101, None))
    board.set_processes((102, 1 << 30), mps=True)
    source.open()
    state = source.state(board.uuid)
    assert state is not None
    assert state.gpu.uuid == board.uuid
    assert (state.power_limit_mw, state.utilization_percent, state.temperature_celsius, state.sm_clock_hz) == (
        650_000,
        50,
        40,
        1_980_000_000,
    )
    assert (state.memory_used_bytes, state.memory_total_bytes) == (10 << 30, 80 << 30)
    assert state.clock_events == frozenset({"sw_power_cap", "hw_power_brake_slowdown"})
    assert state.processes == (GpuProcess(100, 5 << 30), GpuProcess(101, None), GpuProcess(102, 1 << 30))


def test_state_by_the_older_calls(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY)
    board, source = node.boards[0], make_source()
    for call in ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons"):
        board.fail(call, NOT_SUPPORTED)
    board.entry.event_reasons = 0x1
    source.open()
    for _ in range(2):
        state = source.state(board.uuid)
        assert state is not None
        assert (state.memory_used_bytes, state.temperature_celsius, state.clock_events) == (11 << 30, 40, frozenset({"gpu_idle"}))
    assert board.calls("nvmlDeviceGetMemoryInfo_v2") == board.calls("nvmlDeviceGetTemperature") == 1


def test_processes_that_cannot_be_listed_are_unknown_and_none_are_none(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    source.open()
    state = source.state(board.uuid)
    assert state is not None
    assert state.processes == ()
    board.fail("nvmlDeviceGetComputeRunningProcesses_v3", TIMEOUT)
    state = source.state(board.uuid)
    assert state is not None
    assert state.processes is None


def test_sm_utilization_is_the_mean_since_the_last_question(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    source.open()
    now_us = time.time_ns() // 1000
    board.add_sample(100, now_us - 60_000_000, 99)  # from before anybody asked
    board.add_sample(100, now_us, 20)
    assert read(source, board, want_processes=True).sm_utilization == {100: 20}
    assert read(source, board, want_processes=True).sm_utilization == {}
    board.add_sample(100, now_us + 1, 40)
    board.add_sample(101, now_us + 2, 10)
    board.add_sample(100, now_us + 3, 60)
    board.add_sample(102, now_us + 3, 4_000_000_000)  # an entry that was never filled in
    assert read(source, board, want_processes=True).sm_utilization == {100: 50, 101: 10}
    assert read(source, board).sm_utilization is None


def test_sm_utilization_of_long_ago_does_not_count_when_asked_again(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    source.open()
    board.add_sample(100, 5_000_000, 20)
    read(source, board, want_processes=True)
    read(source, board)
    board.add_sample(100, 6_000_000, 99)
    board.add_sample(100, 60_000_000, 30)
    assert read(source, board, want_processes=True).sm_utilization == {100: 30}


def test_sm_utilization_unsupported_is_unknown_and_asked_once(make_node: MakeNode, make_source: MakeSource) -> None:
    board = make_node(STEADY).boards[0]
    source = make_source()
    board.fail("nvmlDeviceGetProcessUtilization", NOT_SUPPORTED)
    source.open()
    for _ in range(3):
        reading = read(source, board, want_processes=True)
        assert (reading.sm_utilization, reading.power_mw) == (None, 300_000)
    assert board.calls("nvmlDeviceGetProcessUtilization") == 1


def test_close_twice_and_open_again(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY)
    source = make_source()
    source.open()
    source.close()
    source.close()
    assert node.control.references == 0
    assert source.read(node.boards[0].uuid, want_processes=False).lost
    assert source.state(node.boards[0].uuid) is None
    assert len(source.open()) == 1
    assert read(source, node.boards[0]).error is None
