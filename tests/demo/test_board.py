from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwatt.demo.board import COUNTER_QUANTUM_NS, Board
from tokenwatt.demo.load import Load, Shape
from tokenwatt.demo.profiles import CHAT_8B, CHAT_70B, CODE_32B, H100, L4, SMALL_8B, Profile
from tokenwatt.demo.steps import STEP_NS

S = 10**9


def _board(shape: Shape | None, profile: Profile = CHAT_8B, index: int = 0, origin_ns: int = 0) -> Board:
    load = None if shape is None else Load(profile, shape, seed=1, name="chat", origin_ns=origin_ns)
    return Board(profile.board, index, load, seed=1, origin_ns=origin_ns)


BURSTS = _board(Shape(peak=96, burst_s=(8, 8)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200 * S), st.integers(0, 20 * S))
def test_energy_is_the_integral_of_power(start_ns: int, span_ns: int) -> None:
    end_ns = start_ns + span_ns
    edges = [start_ns, *range(start_ns // STEP_NS * STEP_NS + STEP_NS, end_ns, STEP_NS), end_ns]
    integral_uj = sum(BURSTS.power_mw(a) * (b - a) for a, b in pairwise(edges)) / 1e6
    assert BURSTS.energy_uj(end_ns) - BURSTS.energy_uj(start_ns) == pytest.approx(integral_uj, abs=1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5 * S, 400 * S), min_size=2, max_size=20))
def test_energy_and_counter_never_fall_and_do_not_depend_on_the_order(instants: list[int]) -> None:
    asked = [(BURSTS.energy_uj(t), BURSTS.counter_mj(t)) for t in instants]
    fresh = _board(Shape(peak=96, burst_s=(8, 8)))
    rising = sorted(instants)
    in_order = [(fresh.energy_uj(t), fresh.counter_mj(t)) for t in rising]
    assert sorted(asked) == in_order
    assert all(a[0] < b[0] for (t, a), (u, b) in pairwise(zip(rising, in_order, strict=True)) if t < u - S // 1000)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300 * S), st.integers(0, 10 * S))
def test_the_counter_lags_by_less_than_its_quantum(start_ns: int, span_ns: int) -> None:
    truth_mj = (BURSTS.energy_uj(start_ns + span_ns) - BURSTS.energy_uj(start_ns)) / 1000
    counted_mj = BURSTS.counter_mj(start_ns + span_ns) - BURSTS.counter_mj(start_ns)
    assert abs(counted_mj - truth_mj) <= H100.limit_mw * COUNTER_QUANTUM_NS / S + 1


def test_the_counter_stands_still_between_updates() -> None:
    values = {BURSTS.counter_mj(10 * S + ms * 1_000_000) for ms in range(0, 1000, 10)}
    assert len(values) == 10


def test_a_reset_counter_counts_from_zero() -> None:
    assert BURSTS.counter_mj(20 * S, reset_ns=20 * S) == 0
    truth_uj = BURSTS.energy_uj(50 * S) - BURSTS.energy_uj(20 * S)
    assert BURSTS.counter_mj(50 * S, reset_ns=20 * S) == truth_uj // 1000


def test_the_mean_is_over_the_last_second_and_the_instant_is_not() -> None:
    # Bursts end at 8 s: half a second later the mean is half way down.
    high, low = BURSTS.power_mean_mw(8 * S), BURSTS.power_mw(9 * S)
    assert BURSTS.power_mean_mw(8 * S + S // 2) == pytest.approx((high + low) / 2, rel=0.02)
    assert BURSTS.power_instant_mw(8 * S + S // 2) == pytest.approx(low, rel=0.016)


def test_instant_power_strays_but_its_mean_is_true() -> None:
    instants = range(0, 120 * S, 100_000_000)
    integral_uj = sum(BURSTS.power_instant_mw(t) for t in instants) * 100
    assert integral_uj == pytest.approx(BURSTS.energy_uj(120 * S), rel=0.003)
    assert any(BURSTS.power_instant_mw(t) != BURSTS.power_mw(t) for t in instants)


@pytest.mark.parametrize(
    ("profile", "batch", "watts", "joules_per_token"),
    [
        (CHAT_8B, 8, 486, 0.455), (CHAT_8B, 64, 610, 0.119),
        (CODE_32B, 8, 850, 1.63),
        (CHAT_70B, 8, 1765, 3.76), (CHAT_70B, 128, 2184, 0.563),
    ],
)  # fmt: skip
def test_watts_and_joules_per_token_are_those_measured(profile: Profile, batch: int, watts: float, joules_per_token: float) -> None:
    # ML.ENERGY leaderboard v3, snapshot 2026-02-27. Our prefill comes on top, so figures may be somewhat higher.
    load = Load(profile, Shape(peak=batch, swell_permille=0), seed=1, name="steady", origin_ns=0)
    boards = [Board(profile.board, i, load, seed=1, origin_ns=0) for i in range(profile.boards)]
    span = (60 * S, 180 * S)
    joules = sum(b.energy_uj(span[1]) - b.energy_uj(span[0]) for b in boards) / 1e6
    tokens = load.at(span[1]).generation - load.at(span[0]).generation
    assert joules / 120 == pytest.approx(watts, rel=0.10)
    assert joules / tokens == pytest.approx(joules_per_token, rel=0.12)


def test_idle_boards_draw_what_idle_boards_draw() -> None:
    held, bare = _board(Shape(peak=0)), _board(None)
    assert held.power_mean_mw(100 * S) == pytest.approx(110_000, rel=0.03)
    assert bare.power_mean_mw(100 * S) == pytest.approx(70_000, rel=0.03)
    for board, clock_hz, memory in ((held, H100.sm_clock_hz, H100.memory_bytes * 92 // 100), (bare, H100.sm_clock_idle_hz, 0)):
        state = board.state(100 * S)
        assert (state.sm_clock_hz, state.memory_used_bytes) == (clock_hz, memory)
        assert (state.clock_events, state.utilization_percent) == (frozenset({"gpu_idle"}), 0)


def test_the_limit_holds_and_says_so() -> None:
    board = _board(Shape(peak=32), SMALL_8B)
    powers = [board.power_mw(t * STEP_NS) for t in range(400)]
    assert max(powers) == L4.limit_mw
    assert board.power_mean_mw(100 * S) == L4.limit_mw
    state = board.state(100 * S)
    assert state.clock_events == frozenset({"sw_power_cap"})
    assert state.sm_clock_hz is not None
    assert state.sm_clock_hz < L4.sm_clock_hz
    assert state.utilization_percent == 100


def test_a_full_prefill_meets_the_limit_of_an_h100() -> None:
    assert BURSTS.power_mw(16 * S) == H100.limit_mw
    assert BURSTS.state(16 * S).clock_events == frozenset({"sw_power_cap"})
    assert BURSTS.state(20 * S).clock_events == frozenset()


def test_temperature_follows_power_slowly() -> None:
    board = _board(Shape(peak=64, burst_s=(200, 200)))
    celsius = [board.state(t * S).temperature_celsius or 0 for t in range(400)]
    assert celsius[0] < 40
    assert celsius[5] < celsius[20] < celsius[190]
    assert 60 <= celsius[190] <= 75
    assert celsius[205] > 50  # still warm
    assert celsius[399] < 40


def test_boards_of_one_server_differ_a_little() -> None:
    load = Load(CHAT_70B, Shape(peak=64), seed=1, name="chat", origin_ns=0)
    joules = [Board(H100, i, load, seed=1, origin_ns=0).energy_uj(60 * S) / 1e6 for i in range(4)]
    assert len(set(joules)) == 4
    assert max(joules) / min(joules) < 1.05
