"""An hour of everything that goes wrong at once."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.ledger.simulation import SECOND, Poll, Simulation
from tokenwatt.demo.node import SimulatedNode
from tokenwatt.demo.source import Loss


@dataclass(frozen=True)
class Hour:
    """What the books and the truth say after it."""

    measured_uj: int
    true_uj: int
    tokens: dict[str, tuple[dict[str, int], dict[str, int]]]
    """By server: booked, true."""
    board_uj: dict[str, tuple[int, int]]
    """By board: measured, true."""
    failures: int
    restarts: int
    intervals: int

    @property
    def energy_error(self) -> float:
        """Relative."""
        return self.measured_uj / self.true_uj - 1


def run_hour(seed: int, seconds: int = 3600) -> Hour:
    """Bursty load on eight boards and three servers; scrapes that fail for a second or a minute, refused connections, restarts,
    a board lost twice (once with its counter reset), a counter that begins anew, and a board without one."""
    node = SimulatedNode(seed)
    chance = random.Random(seed)
    counts = {"failures": 0, "restarts": 0}

    def fault(poll: Poll, t_ns: int) -> int:
        if t_ns < poll.down_until_ns:
            return 0
        poll.gone = False
        draw = chance.random()
        if draw < 0.03:
            counts["failures"] += 1
            return round(chance.choice((0.5, 0.5, 0.5, 3, 8, 75)) * SECOND)
        if draw < 0.032:
            counts["restarts"] += 1
            poll.gone = chance.random() < 0.5
            away_ns = chance.randrange(2, 40) * SECOND
            node.server(poll.name).restart(t_ns + away_ns - SECOND // 2)
            return away_ns
        return 0

    simulation = Simulation(node, fault, seed)
    uuids = [board.gpu.uuid for board in node.boards]
    simulation.source.lose(uuids[1], Loss(round(seconds * 0.2) * SECOND, round(seconds * 0.22) * SECOND))
    simulation.source.lose(uuids[4], Loss(round(seconds * 0.4) * SECOND, round(seconds * 0.4 + 2) * SECOND, resets=True))
    simulation.source.reset_counter(uuids[0], round(seconds * 0.6) * SECOND)
    simulation.source.drop_counter(uuids[6])
    simulation.run(0.1)
    first_ns = simulation.t_ns
    intervals = 0

    def count() -> None:
        nonlocal intervals
        intervals += len(simulation.meter.take_closed())

    simulation.run(seconds, count)
    snapshot = simulation.snapshot()
    boards = {g.gpu.uuid: g.energy_uj or 0 for g in snapshot.gpus}
    truth = {b.gpu.uuid: b.energy_uj(simulation.t_ns) - b.energy_uj(first_ns) for b in node.boards}
    return Hour(
        measured_uj=sum(boards.values()),
        true_uj=sum(truth.values()),
        tokens={p.name: (dict(simulation.tokens(p.name)), dict(simulation.true_tokens(p))) for p in simulation.polls},  # type: ignore[arg-type]
        board_uj={uuid: (boards[uuid], truth[uuid]) for uuid in uuids},
        intervals=intervals,
        **counts,
    )
