"""How a GPU's energy is divided among its holders at one power tick."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tokenwatt.types import EnergyReading, Holder, Share, Split

UTILIZATION_STAYS_NS = 1_000_000_000
"""The driver samples processes a few times a second, slower than we tick: its last word holds until the next, and at most this long."""

_UNATTRIBUTED = (Share(None, 1),)


class Sharing:
    """Divides ticks of one GPU."""

    def __init__(self) -> None:
        self._utilization: Mapping[int, int] = {}
        self._utilization_t_ns = 0
        self._sole: tuple[Share, ...] = _UNATTRIBUTED

    def shares(
        self, reading: EnergyReading, holders: Sequence[Holder], tokens: Callable[[str], int]
    ) -> tuple[tuple[Share, ...], Split | None]:
        """The weights of one tick, and how they came about; nobody there: all unattributed, None.

        ``tokens`` tells the processed tokens of a server's last closed interval.
        """
        if not holders:
            return _UNATTRIBUTED, None
        if len(holders) == 1:
            if self._sole[0].server != holders[0].server:
                self._sole = (Share(holders[0].server, 1),)
            return self._sole, "sole"
        weights, split = self._by_utilization(reading, holders), "sm_utilization"
        if weights is None:
            weights, split = _by_tokens(holders, tokens), "tokens"
        if weights is None:
            weights, split = [1] * len(holders), "equal"
        return tuple(Share(holder.server, weight) for holder, weight in zip(holders, weights, strict=True)), split  # type: ignore[return-value]

    def _by_utilization(self, reading: EnergyReading, holders: Sequence[Holder]) -> list[int] | None:
        if reading.sm_utilization:
            self._utilization, self._utilization_t_ns = reading.sm_utilization, reading.t_ns
        if reading.t_ns - self._utilization_t_ns > UTILIZATION_STAYS_NS or not all(holder.pids for holder in holders):
            return None
        weights = [sum(self._utilization.get(pid, 0) for pid in holder.pids) for holder in holders]
        return weights if any(weights) else None


def _by_tokens(holders: Sequence[Holder], tokens: Callable[[str], int]) -> list[int] | None:
    weights = []
    for holder in holders:
        if holder.server is None:
            # A foreign process makes no tokens we know of. It would get nothing this way, and the servers beside it would pay for it.
            return None
        weights.append(tokens(holder.server))
    return weights if any(weights) else None
