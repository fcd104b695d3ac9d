"""One board's energy over random readings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenwatt.accounting.divide import divide
from tokenwatt.accounting.energy_counter import EnergyCounter, PowerIntegral
from tokenwatt.types import EnergyReading

T0 = 10**12
gaps_ns = st.integers(1, 10**11)
power_mw = st.one_of(st.none(), st.integers(0, 2_000_000))
energy_mj = st.one_of(st.none(), st.integers(0, 2**40))


@given(st.integers(0, 2**62), st.lists(st.integers(0, 2**31), min_size=1, max_size=9).filter(any))
def test_parts_sum_to_the_whole_and_no_weight_means_no_part(amount: int, weights: list[int]) -> None:
    parts = divide(amount, weights)
    assert sum(parts) == amount
    assert all(part >= 0 for part in parts)
    assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)
    total = sum(weights)
    assert all(abs(part - amount * weight / total) <= len(weights) + amount * 1e-15 for part, weight in zip(parts, weights, strict=True))


@given(st.one_of(st.none(), st.integers(1, 10**6)), st.lists(st.tuples(gaps_ns, energy_mj, power_mw), max_size=40))
def test_it_only_grows_and_its_bookings_are_all_of_it(limit_mw: int | None, readings: list[tuple[int, int | None, int | None]]) -> None:
    counter, t_ns, booked_uj, end_ns = EnergyCounter(limit_mw), T0, 0, None
    for gap_ns, mj, mw in readings:
        t_ns += gap_ns
        booking = counter.read(EnergyReading("GPU-1", t_ns, mj, mw))
        if booking is not None:
            assert booking.delta_uj >= 0
            assert booking.t_ns == t_ns == counter.last_t_ns
            assert end_ns is None or booking.since_ns == end_ns
            booked_uj += booking.delta_uj
        assert counter.total_uj == booked_uj
        end_ns = counter.last_t_ns


@given(st.integers(1, 10**6), st.lists(st.tuples(gaps_ns, st.integers(0, 10**5)), min_size=1, max_size=40))
def test_a_plausible_counter_is_booked_to_the_millijoule(limit_mw: int, steps: list[tuple[int, int]]) -> None:
    counter, t_ns, value_mj = EnergyCounter(limit_mw), T0, 77
    counter.read(EnergyReading("GPU-1", t_ns, value_mj))
    for gap_ns, thousandths in steps:
        t_ns += gap_ns
        value_mj += limit_mw * gap_ns * thousandths // (10**5 * 10**9)
        counter.read(EnergyReading("GPU-1", t_ns, value_mj))
    assert counter.total_uj == (value_mj - 77) * 1000
    assert counter.rejected == counter.resets == 0


@given(st.lists(st.tuples(st.integers(1, 5 * 10**9), st.integers(0, 10**7)), min_size=2, max_size=60))
def test_the_integral_is_the_trapezoid_and_loses_nothing_to_rounding(points: list[tuple[int, int]]) -> None:
    integral, t_ns, twice = PowerIntegral(), T0, 0
    previous = None
    for gap_ns, mw in points:
        t_ns += gap_ns
        integral.add(t_ns, mw)
        if previous is not None:
            twice += (previous + mw) * gap_ns
        previous = mw
    assert integral.total_uj == twice // 2_000_000
