"""What happens to a board, told to the log once."""

from __future__ import annotations

import logging
from typing import Final

from tokenwatt.types import EnergyReading, Gpu

LOGGER: Final = logging.getLogger("tokenwatt.energy")

_SETTLED_NS: Final = 1_000_000_000
"""A read that failed, and a recovery, must last so long to be told: a board that fails at every other read is not two lines a tick."""


class BoardLog:
    """Tells when a board changes between answering, failing and being gone."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.kind = "ok"
        self._changed: str | None = None
        self._changed_ns = 0
        self._bad_since_ns = 0

    def update(self, reading: EnergyReading) -> None:
        """Take one reading's fate into account."""
        kind = "ok" if reading.error is None else "gone" if reading.lost else "failing"
        if kind == self.kind:
            self._changed = None
            return
        if kind != self._changed:
            self._changed, self._changed_ns = kind, reading.t_ns
        if kind == "gone" or reading.t_ns - self._changed_ns >= _SETTLED_NS:
            self._tell(kind, reading)

    def _tell(self, kind: str, reading: EnergyReading) -> None:
        if kind == "ok":
            away_s = (self._changed_ns - self._bad_since_ns) / 1e9
            LOGGER.info("GPU %d (%s) answers again after %.0f s", self.gpu.index, self.gpu.uuid, away_s)
        elif kind == "gone":
            message = "GPU %d (%s) is gone: %s. The other GPUs go on, and it is looked for every second"
            LOGGER.warning(message, self.gpu.index, self.gpu.uuid, reading.error)
        else:
            message = "GPU %d (%s) can't be read: %s. The other GPUs go on, and it is asked again at every tick"
            LOGGER.warning(message, self.gpu.index, self.gpu.uuid, reading.error)
        if self.kind == "ok":
            self._bad_since_ns = self._changed_ns
        self.kind, self._changed = kind, None
