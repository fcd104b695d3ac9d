"""The books against the truth of a simulation: the figures that the project promises."""

from __future__ import annotations

import pytest

from tests.ledger.hour import run_hour
from tests.ledger.windows import worst_window_error


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_an_hour_of_faults(seed: int) -> None:
    hour = run_hour(seed)
    assert hour.failures > 100
    assert hour.restarts > 5
    assert hour.intervals > 5_000
    assert abs(hour.energy_error) < 0.002
    for measured_uj, true_uj in hour.board_uj.values():
        assert measured_uj == pytest.approx(true_uj, rel=0.002)
    for booked, true in hour.tokens.values():
        assert booked == true


def test_five_minutes_of_faults() -> None:
    hour = run_hour(7, seconds=300)
    assert abs(hour.energy_error) < 0.01
    for booked, true in hour.tokens.values():
        assert booked == true


def test_windows_under_bursts_are_right_over_the_span_they_say() -> None:
    worst, checked = worst_window_error(seconds=400)
    assert checked > 300
    assert worst < 0.01
