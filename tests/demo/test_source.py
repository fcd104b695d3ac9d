import pytest

from tokenwatt.demo.node import SimulatedNode
from tokenwatt.demo.source import Loss, SimulatedSource
from tokenwatt.energy.clock_events import CLOCK_EVENTS
from tokenwatt.energy.source import EnergySource, SourceUnavailable

S = 10**9


class Clock:
    """Simulated time, set by hand."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node() -> SimulatedNode:
    return SimulatedNode()


@pytest.fixture
def source(node: SimulatedNode, clock: Clock) -> SimulatedSource:
    return node.source(clock)


def test_it_is_an_energy_source_that_says_that_it_is_simulated(source: SimulatedSource) -> None:
    as_protocol: EnergySource = source
    assert as_protocol.simulated
    gpus = as_protocol.open()
    assert [g.index for g in gpus] == list(range(8))
    assert len({g.uuid for g in gpus}) == len({g.pci_bus_id for g in gpus}) == 8
    assert all(g.uuid.startswith("GPU-00000000-demo-") and g.name == "NVIDIA H100 80GB HBM3 (simulated)" for g in gpus)
    as_protocol.close()
    as_protocol.close()


def test_a_reading_is_of_the_clock_s_instant(source: SimulatedSource, node: SimulatedNode, clock: Clock) -> None:
    board = node.boards[0]
    for clock.now_ns in (0, 30 * S, 3600 * S):
        reading = source.read(board.gpu.uuid, want_processes=True)
        assert (reading.t_ns, reading.error, reading.lost) == (clock.now_ns, None, False)
        assert reading.energy_mj == board.counter_mj(clock.now_ns)
        assert reading.power_mw == board.power_mean_mw(clock.now_ns)
        assert reading.power_instant_mw == board.power_instant_mw(clock.now_ns)


def test_states_are_plausible_and_use_the_published_names(source: SimulatedSource, clock: Clock) -> None:
    for clock.now_ns in range(0, 60 * S, S):
        for gpu in source.open():
            state = source.state(gpu.uuid)
            assert state is not None
            assert state.clock_events is not None
            assert state.clock_events <= set(CLOCK_EVENTS.values())
            assert 0 <= (state.utilization_percent or 0) <= 100
            assert (state.memory_used_bytes or 0) < (state.memory_total_bytes or 0)
            assert 20 < (state.temperature_celsius or 0) < 90


def test_a_lost_board_is_gone_and_comes_back_where_it_was(source: SimulatedSource, node: SimulatedNode, clock: Clock) -> None:
    uuid = node.boards[3].gpu.uuid
    source.lose(uuid, Loss(10 * S, 20 * S))
    clock.now_ns = 10 * S
    reading = source.read(uuid, want_processes=False)
    assert reading.lost
    assert reading.error
    assert (reading.energy_mj, reading.power_mw, reading.power_instant_mw) == (None, None, None)
    assert source.state(uuid) is None
    assert uuid not in {g.uuid for g in source.open()}
    assert not source.read(node.boards[4].gpu.uuid, want_processes=False).lost
    clock.now_ns = 20 * S
    assert source.read(uuid, want_processes=False).energy_mj == node.boards[3].counter_mj(20 * S)
    assert len(source.open()) == 8


def test_a_board_can_come_back_with_a_new_counter(source: SimulatedSource, node: SimulatedNode, clock: Clock) -> None:
    uuid = node.boards[3].gpu.uuid
    source.lose(uuid, Loss(10 * S, 20 * S, resets=True))
    clock.now_ns = 30 * S
    board = node.boards[3]
    assert source.read(uuid, want_processes=False).energy_mj == (board.energy_uj(30 * S) - board.energy_uj(20 * S)) // 1000


def test_a_reset_is_seen_from_its_instant_on_and_the_last_one_counts(source: SimulatedSource, node: SimulatedNode, clock: Clock) -> None:
    board = node.boards[0]
    for t_ns in (40 * S, 10 * S):
        source.reset_counter(board.gpu.uuid, t_ns)
    expected = {
        9 * S: board.counter_mj(9 * S),
        12 * S: (board.energy_uj(12 * S) - board.energy_uj(10 * S)) // 1000,
        41 * S: (board.energy_uj(41 * S) - board.energy_uj(40 * S)) // 1000,
    }
    for clock.now_ns, energy_mj in expected.items():
        assert source.read(board.gpu.uuid, want_processes=False).energy_mj == energy_mj


def test_a_board_without_a_counter_still_has_power(source: SimulatedSource, node: SimulatedNode) -> None:
    uuid = node.boards[0].gpu.uuid
    source.drop_counter(uuid)
    reading = source.read(uuid, want_processes=False)
    assert reading.energy_mj is None
    assert reading.power_mw
    assert reading.error is None


def test_no_board_at_all_is_one_sentence(source: SimulatedSource, node: SimulatedNode) -> None:
    for board in node.boards:
        source.lose(board.gpu.uuid, Loss(0, S))
    with pytest.raises(SourceUnavailable, match=r"All simulated GPUs are lost\."):
        source.open()
