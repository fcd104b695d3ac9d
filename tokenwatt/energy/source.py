"""Where joules come from: the seam between hardware (or its simulation) and the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tokenwatt.types import EnergyReading, Gpu, GpuState


class SourceUnavailable(Exception):
    """There is no GPU to read, said in one sentence for people: what is missing and what to do."""


class EnergySource(Protocol):
    """The boards of one node. Calls for different boards may come from different threads; calls for one board never overlap."""

    simulated: bool

    def open(self) -> Sequence[Gpu]:
        """(Re)initialise and enumerate: the boards that answer now.

        Raises:
            SourceUnavailable: no library, no driver, or no board.
        """

    def read(self, uuid: str, *, want_processes: bool) -> EnergyReading:
        """One board's energy and power, with its processes' SM utilisation if asked. Never raises for a broken board: the reading tells."""

    def state(self, uuid: str) -> GpuState | None:
        """What else the board tells. None: nothing (the board is gone)."""

    def close(self) -> None:
        """Let the library go. Safe to call twice."""
