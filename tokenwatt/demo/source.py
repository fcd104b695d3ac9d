"""The simulated boards as an energy source, with the faults that real ones have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenwatt.demo.board import Board
from tokenwatt.energy.source import SourceUnavailable
from tokenwatt.types import EnergyReading, Gpu, GpuState


@dataclass(frozen=True, slots=True)
class Loss:
    """A board that is gone from ``start_ns`` until just before ``end_ns``."""

    start_ns: int
    end_ns: int
    resets: bool = False
    """Its energy counter begins at zero at ``end_ns``, as after a driver reload."""


class SimulatedSource:
    """The boards of a simulated node. What it tells depends on ``clock`` (ns) and the faults alone."""

    simulated: bool = True

    def __init__(self, boards: Sequence[Board], clock: Callable[[], int]) -> None:
        self._boards = {b.gpu.uuid: b for b in boards}
        self._clock = clock
        self._losses: dict[str, list[Loss]] = {}
        self._resets_ns: dict[str, list[int]] = {}
        self._without_counter: set[str] = set()

    def open(self) -> Sequence[Gpu]:
        """The boards that answer now.

        Raises:
            SourceUnavailable: all are lost.
        """
        t_ns = self._clock()
        found = [b.gpu for b in self._boards.values() if not self._lost(b.gpu.uuid, t_ns)]
        if not found:
            raise SourceUnavailable("All simulated GPUs are lost.")
        return found

    def read(self, uuid: str, *, want_processes: bool) -> EnergyReading:
        """The board at this instant. It never tells processes: simulated boards have none."""
        t_ns = self._clock()
        if self._lost(uuid, t_ns):
            return EnergyReading(uuid, t_ns, error="GPU is lost", lost=True)
        board = self._boards[uuid]
        return EnergyReading(
            uuid,
            t_ns,
            energy_mj=None if uuid in self._without_counter else board.counter_mj(t_ns, self._reset_ns(uuid, t_ns)),
            power_mw=board.power_mean_mw(t_ns),
            power_instant_mw=board.power_instant_mw(t_ns),
        )

    def state(self, uuid: str) -> GpuState | None:
        """What else the board tells. None: it is lost."""
        t_ns = self._clock()
        return None if self._lost(uuid, t_ns) else self._boards[uuid].state(t_ns)

    def close(self) -> None:
        """There is no library to let go."""

    def lose(self, uuid: str, loss: Loss) -> None:
        """The board goes and comes back."""
        self._losses.setdefault(uuid, []).append(loss)
        if loss.resets:
            self.reset_counter(uuid, loss.end_ns)

    def reset_counter(self, uuid: str, t_ns: int) -> None:
        """The board's energy counter begins at zero at ``t_ns``."""
        self._resets_ns.setdefault(uuid, []).append(t_ns)

    def drop_counter(self, uuid: str) -> None:
        """The board has no energy counter, now and always."""
        self._without_counter.add(uuid)

    def _lost(self, uuid: str, t_ns: int) -> bool:
        return any(loss.start_ns <= t_ns < loss.end_ns for loss in self._losses.get(uuid, ()))

    def _reset_ns(self, uuid: str, t_ns: int) -> int | None:
        return max((r for r in self._resets_ns.get(uuid, ()) if r <= t_ns), default=None)
