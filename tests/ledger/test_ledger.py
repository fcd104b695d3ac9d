"""The books against the truth of a simulation: the figures that the project promises."""

from __future__ import annotations

import pytest

from tests.accounting.node import assert_conserved
from tests.ledger.hour import run_hour
from tests.ledger.simulation import SECOND, WALL_S, Simulation
from tokenwatt.demo.node import SERVICES, SimulatedNode


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
    node = SimulatedNode(5, services=[s for s in SERVICES if s.name == "chat-70b"])  # 8 s on, 8 s off
    simulation = Simulation(node, seed=5)
    worst = 0.0
    checked = 0

    def check() -> None:
        nonlocal worst, checked
        server = simulation.server("chat-70b")
        f = server.models[0].windows["1m"] if server.models else None
        if f is None or "generation" not in f.tokens_per_joule:
            return
        from_ns, to_ns = (round((wall_s - WALL_S) * SECOND) for wall_s in (f.from_wall_s, f.to_wall_s))
        start, end = node.truth("chat-70b", from_ns), node.truth("chat-70b", to_ns)
        joules = sum(end.energy_uj[uuid] - uj for uuid, uj in start.energy_uj.items()) / 1e6
        truth = (end.tokens["generation"] - start.tokens["generation"]) / joules
        worst = max(worst, abs(f.tokens_per_joule["generation"] / truth - 1))
        checked += 1

    simulation.run(400, check)
    assert_conserved(simulation.snapshot())
    assert checked > 300
    assert worst < 0.01
