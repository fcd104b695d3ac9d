"""The sampler over the real binding: schedule, isolation of boards that fail or hang, and what it delivers and logs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median

import pytest

from tests.energy.conftest import STEADY, MakeNode, MakeSource
from tests.nvml.board import Board, Node
from tokenwatt.energy.nvml import NvmlSource
from tokenwatt.energy.sampler import Sampler
from tokenwatt.energy.source import SourceUnavailable
from tokenwatt.types import EnergyReading, EnergyTick, GpuStates

MS = 1_000_000
HANG_NS = 300 * MS
FIELDS = "nvmlDeviceGetFieldValues"


class Received:
    """What was delivered, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.ticks: list[EnergyTick] = []
        self.states: list[GpuStates] = []
        self.order: list[str] = []
        self.threads: set[int] = set()
        self._changed = threading.Condition()
        self._inside = 0
        self.overlapped = False

    def deliver(self, item: EnergyTick | GpuStates) -> None:
        with self._changed:
            self._inside += 1
            self.overlapped = self.overlapped or self._inside > 1
            self.threads.add(threading.get_ident())
            (self.ticks if isinstance(item, EnergyTick) else self.states).append(item)  # type: ignore[arg-type]
            self.order.append(type(item).__name__)
            self._changed.notify_all()
            self._inside -= 1

    def wait(self, condition: Callable[[], bool], timeout_s: float = 10) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), "it was not delivered in time"

    def wait_for_ticks(self, more: int) -> None:
        count = len(self.ticks)
        self.wait(lambda: len(self.ticks) >= count + more)

    def last(self, board: Board) -> EnergyReading | None:
        if not self.ticks:
            return None
        return next((reading for reading in self.ticks[-1].readings if reading.uuid == board.uuid), None)

    def wait_for(self, board: Board, condition: Callable[[EnergyReading], bool]) -> EnergyReading:
        def met() -> bool:
            reading = self.last(board)
            return reading is not None and condition(reading)

        self.wait(met)
        reading = self.last(board)
        assert reading is not None
        return reading


class Running:
    """A sampler at work, with what it delivers."""

    def __init__(self, source: NvmlSource, **options: int) -> None:
        self.received = Received()
        periods = {
            "power_period_ns": 10 * MS,
            "state_period_ns": 100 * MS,
            "hang_ns": 2000 * MS,
            "retry_ns": 50 * MS,
            "search_ns": 200 * MS,
        }
        self.sampler = Sampler(source, deliver=self.received.deliver, **{**periods, **options})
        self.sampler.open()
        self.sampler.start()


Run = Callable[..., Running]


def energy_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("energy-")]


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node(STEADY, STEADY, STEADY)


@pytest.fixture
def run(node: Node, make_source: MakeSource) -> Iterator[Run]:
    runs: list[Running] = []

    def start(**options: int) -> Running:
        runs.append(Running(make_source(restart_after_s=0.1), **options))
        return runs[-1]

    yield start
    node.unstick()
    for running in runs:
        running.sampler.stop()
        assert not running.received.overlapped
    for thread in energy_threads():
        thread.join(5)
    assert not energy_threads()


def ok(reading: EnergyReading) -> bool:
    return reading.error is None


def lost(reading: EnergyReading) -> bool:
    return reading.lost


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "tokenwatt.energy"]


def test_every_tick_holds_every_board(node: Node, run: Run) -> None:
    received = run().received
    received.wait_for_ticks(20)
    for tick in received.ticks:
        assert [reading.uuid for reading in tick.readings] == [board.uuid for board in node.boards]
        assert all(reading.energy_mj is not None and reading.power_mw == 300_000 for reading in tick.readings)
    assert received.order[0] == "GpuStates"  # a board is known before its first reading


def test_ticks_keep_the_grid_without_drift(node: Node, make_source: MakeSource) -> None:
    received = Received()

    def deliver(item: EnergyTick | GpuStates) -> None:
        time.sleep(0.005)  # time that a round takes is not added to the period
        received.deliver(item)

    sampler = Sampler(make_source(), power_period_ns=20 * MS, state_period_ns=1000 * MS, deliver=deliver)
    sampler.open()
    sampler.start()
    received.wait_for_ticks(30)
    sampler.stop()
    starts = [tick.readings[0].t_ns for tick in received.ticks]
    assert abs(median(b - a for a, b in pairwise(starts)) - 20 * MS) < 2 * MS


def test_late_ticks_are_left_out(node: Node, run: Run) -> None:
    received = run(hang_ns=5000 * MS).received
    received.wait_for_ticks(2)
    node.boards[2].stick(FIELDS)
    time.sleep(0.25)
    node.boards[2].stick(FIELDS, False)
    received.wait_for_ticks(8)
    starts = [tick.readings[0].t_ns for tick in received.ticks]
    late = next(i for i, (a, b) in enumerate(pairwise(starts)) if b - a > 200 * MS)
    assert starts[late + 6] - starts[late + 1] > 30 * MS  # made up for, they would come at once


def test_energy_of_the_readings_is_the_truth(node: Node, run: Run) -> None:
    received = run().received
    node.boards[1].set_trace([(30, 700_000), (20, 60_000)])
    received.wait_for_ticks(60)
    board = node.boards[1]
    for tick in received.ticks[5:]:
        before, reading, after = tick.readings  # boards are read one after the other
        assert reading.energy_mj is not None
        assert board.counter_mj(before.t_ns) <= reading.energy_mj <= board.counter_mj(after.t_ns)


def test_states_come_once_a_period_with_every_board_refreshed(node: Node, run: Run) -> None:
    received = run().received
    received.wait(lambda: len(received.states) >= 2)
    before = [board.calls("nvmlDeviceGetTemperature") for board in node.boards]
    since = len(received.states)
    received.wait(lambda: len(received.states) >= since + 5)
    asked = [board.calls("nvmlDeviceGetTemperature") - count for board, count in zip(node.boards, before, strict=True)]
    assert all(4 <= count <= 7 for count in asked)
    assert all(len(states.states) == 3 for states in received.states)


def test_utilisation_is_asked_of_shared_boards_only(node: Node, run: Run) -> None:
    node.boards[0].set_processes((100, 1), (101, 1), sm_percent=40)
    node.boards[1].set_processes((102, 1), sm_percent=40)
    received = run().received
    received.wait_for(node.boards[0], lambda reading: bool(reading.sm_utilization))
    utilizations = [reading.sm_utilization for tick in received.ticks for reading in tick.readings if reading.uuid == node.boards[0].uuid]
    assert {100: 40, 101: 40} in utilizations
    assert node.boards[1].calls("nvmlDeviceGetProcessUtilization") == 0


def test_lost_board_drops_out_alone_and_comes_back(node: Node, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    received = run().received
    received.wait_for_ticks(2)
    node.boards[1].entry.lost = 1
    gone = received.wait_for(node.boards[1], lost)
    assert "the GPU is lost" in (gone.error or "")
    seen = len(received.ticks)
    received.wait_for_ticks(20)
    assert all(len(tick.readings) == 3 and tick.readings[1].lost for tick in received.ticks[seen:])
    states = len(received.states)
    received.wait(lambda: len(received.states) >= states + 2)
    assert [state.gpu.uuid for state in received.states[-1].states] == [node.boards[0].uuid, node.boards[2].uuid]
    assert all(ok(tick.readings[i]) or "restarted" in str(tick.readings[i].error) for tick in received.ticks for i in (0, 2))
    node.boards[1].entry.lost = 0
    received.wait_for(node.boards[1], ok)
    received.wait(lambda: len(received.states[-1].states) == 3)
    told = [message for message in messages(caplog) if node.boards[1].uuid in message and "is a NVIDIA" not in message]
    assert told[0].startswith(f"GPU 1 ({node.boards[1].uuid}) is gone: the GPU is lost")
    assert len(told) == 1


def test_recovery_is_told_once_it_has_lasted(node: Node, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    received = run().received
    received.wait_for_ticks(2)
    node.boards[0].entry.lost = 1
    received.wait_for(node.boards[0], lost)
    node.boards[0].entry.lost = 0
    received.wait(lambda: any("answers again after" in message for message in messages(caplog)))


def test_board_that_fails_now_and_then_is_not_told(node: Node, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    received = run().received
    received.wait_for_ticks(2)
    before = len(messages(caplog))
    for _ in range(10):
        node.boards[0].fail(FIELDS, 10, times=1)
        reading = received.wait_for(node.boards[0], lambda r: r.error is not None)
        assert not reading.lost
        received.wait_for(node.boards[0], ok)
    assert len(messages(caplog)) == before


def test_disappeared_board_and_its_renumbered_neighbours(node: Node, run: Run) -> None:
    node.control.enumerate_at_init = 1
    received = run().received
    received.wait_for_ticks(2)
    node.boards[0].entry.present = 0
    received.wait_for(node.boards[0], lost)
    received.wait(
        lambda: [(s.gpu.uuid, s.gpu.index) for s in received.states[-1].states] == [(b.uuid, i) for i, b in enumerate(node.boards[1:])]
    )
    assert all(ok(reading) for reading in received.ticks[-1].readings[1:])
    node.boards[0].entry.present = 1
    received.wait_for(node.boards[0], ok)
    received.wait(lambda: [state.gpu.index for state in received.states[-1].states] == [0, 1, 2])


def test_driver_reload(node: Node, run: Run) -> None:
    received = run().received
    received.wait_for_ticks(2)
    for board in node.boards:
        board.reset_counter(5_000_000)
    received.wait_for(node.boards[0], lambda reading: (reading.energy_mj or 0) >= 5_000_000)
    node.unload_driver()
    received.wait(lambda: all(reading.lost for reading in received.ticks[-1].readings))
    received.wait(lambda: not received.states[-1].states)
    node.load_driver()
    received.wait(lambda: all(ok(reading) for reading in received.ticks[-1].readings))
    assert all((reading.energy_mj or 0) < 5_000_000 for reading in received.ticks[-1].readings)
    assert node.control.references == 1


def test_new_board_is_picked_up_and_introduced(node: Node, run: Run) -> None:
    received = run().received
    received.wait_for_ticks(2)
    board = node.add(STEADY)
    received.wait_for(board, ok)
    known = [any(state.gpu.uuid == board.uuid for state in states.states) for states in received.states]
    first_tick = next(i for i, tick in enumerate(received.ticks) if len(tick.readings) == 4)
    states_before = received.order[: [i for i, name in enumerate(received.order) if name == "EnergyTick"][first_tick]].count("GpuStates")
    assert any(known[:states_before])


@pytest.mark.parametrize("call", [FIELDS, "nvmlDeviceGetTemperature"])
def test_board_that_hangs_does_not_stop_the_others(node: Node, run: Run, caplog: pytest.LogCaptureFixture, call: str) -> None:
    caplog.set_level(logging.INFO)
    received = run(hang_ns=HANG_NS).received
    received.wait_for_ticks(2)
    node.boards[1].stick(call)
    reading = received.wait_for(node.boards[1], lost)
    assert (reading.error or "").startswith("the driver has not answered for")
    assert ok(received.ticks[-1].readings[0])
    received.wait_for_ticks(30)
    assert all(ok(reading) for tick in received.ticks for reading in (tick.readings[0], tick.readings[2]))
    states = len(received.states)
    received.wait(lambda: len(received.states) >= states + 2)
    assert [state.gpu.uuid for state in received.states[-1].states] == [node.boards[0].uuid, node.boards[2].uuid]
    node.unstick()
    received.wait_for(node.boards[1], ok)
    received.wait(lambda: len(received.states[-1].states) == 3)
    assert sum("has not answered for" in message for message in messages(caplog)) == 1
    assert len(energy_threads()) <= 3


def test_all_boards_that_hang_are_told_and_come_back(node: Node, run: Run) -> None:
    received = run(hang_ns=HANG_NS).received
    received.wait_for_ticks(2)
    for board in node.boards:
        board.stick(FIELDS)
    received.wait(lambda: bool(received.ticks) and all(reading.lost for reading in received.ticks[-1].readings))
    received.wait_for_ticks(5)
    node.unstick()
    received.wait(lambda: all(ok(reading) for reading in received.ticks[-1].readings))


def test_board_that_hangs_again_and_again_stops_the_others_once(node: Node, run: Run) -> None:
    received = run(hang_ns=HANG_NS).received
    received.wait_for_ticks(2)
    node.boards[1].stick(FIELDS)
    received.wait_for(node.boards[1], lost)
    since = len(received.ticks)
    for _ in range(4):
        calls = node.boards[1].calls(FIELDS)
        node.boards[1].stick(FIELDS, False)
        received.wait(lambda calls=calls: node.boards[1].calls(FIELDS) > calls)  # type: ignore[misc]
        node.boards[1].stick(FIELDS)
        received.wait_for_ticks(30)
    starts = [tick.readings[0].t_ns for tick in received.ticks[since:]]
    assert max(b - a for a, b in pairwise(starts)) < HANG_NS


def test_search_that_hangs_stops_nothing(node: Node, run: Run) -> None:
    received = run().received
    received.wait_for_ticks(2)
    node.boards[2].entry.lost = 1
    node.boards[2].stick("nvmlDeviceGetHandleByIndex_v2")
    received.wait_for(node.boards[2], lost)
    received.wait_for_ticks(30)
    assert all(ok(reading) for reading in received.ticks[-1].readings[:2])
    node.boards[2].entry.lost = 0
    received.wait_for(node.boards[2], ok)  # found by its old handle, while the search still hangs


@pytest.mark.parametrize("hanging", [False, True])
def test_stop_is_prompt_and_final(node: Node, run: Run, hanging: bool) -> None:
    running = run(hang_ns=HANG_NS)
    running.received.wait_for_ticks(3)
    if hanging:
        node.boards[1].stick(FIELDS)
        running.received.wait_for(node.boards[1], lost)
    begin_s = time.monotonic()
    running.sampler.stop()
    assert time.monotonic() - begin_s < 1
    count = len(running.received.order)
    time.sleep(0.05)
    assert len(running.received.order) == count


def test_stop_during_a_call_that_has_just_begun_to_hang(node: Node, run: Run) -> None:
    running = run(hang_ns=5000 * MS)
    running.received.wait_for_ticks(3)
    node.boards[1].stick(FIELDS)
    calls = node.boards[1].calls(FIELDS)
    while node.boards[1].calls(FIELDS) == calls:
        time.sleep(0.001)
    begin_s = time.monotonic()
    running.sampler.stop()
    assert time.monotonic() - begin_s < 1
    count = len(running.received.order)
    node.unstick()
    time.sleep(0.05)
    assert len(running.received.order) == count


def test_receiver_that_fails_is_told_once_and_served_on(node: Node, make_source: MakeSource, caplog: pytest.LogCaptureFixture) -> None:
    received = Received()

    def deliver(item: EnergyTick | GpuStates) -> None:
        received.deliver(item)
        if len(received.ticks) < 10:
            raise ValueError("the receiver is broken")

    sampler = Sampler(make_source(), power_period_ns=5 * MS, state_period_ns=100 * MS, deliver=deliver)
    sampler.open()
    sampler.start()
    received.wait_for_ticks(20)
    sampler.stop()
    assert sum("A round of energy readings failed" in message for message in messages(caplog)) == 1


def test_open_again_until_there_is_a_board(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node()
    received = Received()
    sampler = Sampler(make_source(), power_period_ns=10 * MS, state_period_ns=100 * MS, deliver=received.deliver)
    with pytest.raises(SourceUnavailable):
        sampler.open()
    node.add(STEADY)
    assert len(sampler.open()) == 1
    sampler.start()
    received.wait_for_ticks(2)
    sampler.stop()
