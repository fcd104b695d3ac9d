"""Tokens per joule over a minute, under a load that goes on and off every 8 s, against the truth over the span the figure says."""

from __future__ import annotations

from tests.ledger.simulation import SECOND, WALL_S, Simulation
from tokenwatt.demo.node import SERVICES, SimulatedNode

SERVER = "chat-70b"  # 8 s on, 8 s off


def worst_window_error(seconds: int, seed: int = 5) -> tuple[float, int]:
    """The largest relative error of any snapshot's figure, and how many there were."""
    node = SimulatedNode(seed, services=[s for s in SERVICES if s.name == SERVER])
    simulation = Simulation(node, seed=seed)
    errors: list[float] = []

    def check() -> None:
        for model in simulation.server(SERVER).models:
            f = model.windows["1m"]
            if "generation" in f.tokens_per_joule:
                from_ns, to_ns = (round((wall_s - WALL_S) * SECOND) for wall_s in (f.from_wall_s, f.to_wall_s))
                start, end = node.truth(SERVER, from_ns), node.truth(SERVER, to_ns)
                joules = sum(end.energy_uj[uuid] - uj for uuid, uj in start.energy_uj.items()) / 1e6
                truth = (end.tokens["generation"] - start.tokens["generation"]) / joules
                errors.append(abs(f.tokens_per_joule["generation"] / truth - 1))

    simulation.run(seconds, check)
    return max(errors), len(errors)
