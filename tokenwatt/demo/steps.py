"""Simulated histories in steps: pure functions of seed and step number, walked once and replayable from the start.

Time is cut into steps of ``STEP_NS``. What a step holds follows from the step before it and from noise that depends on (seed, step) alone,
so that the same seed gives the same history however it is asked for: step by step, in leaps, or backwards.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Final, Generic, TypeVar

STEP_NS: Final = 250_000_000
"""Load and power are constant within a step."""

_KEEP: Final = 480  # steps, 2 minutes: further back than the pollers and the 1 s mean ever look
_MASK: Final = (1 << 64) - 1

T = TypeVar("T")


def stream(seed: int, name: str) -> int:
    """A seed of its own for what ``name`` names. Not ``hash()``, which differs from process to process."""
    return mix(seed, zlib.crc32(name.encode()))


def mix(seed: int, index: int) -> int:
    """64 noisy bits for (seed, index): splitmix64. ``random.Random`` costs 10 times more to seed, and this is done several times a step."""
    z = (seed + index * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def permille(seed: int, index: int, spread: int) -> int:
    """A factor around 1000, at most ``spread`` away."""
    return 1000 - spread + mix(seed, index) % (2 * spread + 1)


class Steps(Generic[T]):
    """The rows of a history by step number, from -1 (before the first step) on. Safe to call from several threads.

    ``advance(k, row_before)`` makes row ``k`` and must be pure. Rows older than 2 minutes are dropped; asking for one replays the history
    from its start, at some microseconds a step.
    """

    def __init__(self, start: T, advance: Callable[[int, T], T]) -> None:
        self._start = start
        self._advance = advance
        self._first = -1
        self._rows = [start]
        self._past: Steps[T] | None = None
        self._lock = threading.Lock()

    def at(self, k: int) -> T:
        """Row ``k``; what lies before the start is the start."""
        return self.around(k)[1]

    def around(self, k: int) -> tuple[T, T]:
        """Rows ``k - 1`` and ``k``: what was before the step, and the step."""
        if k < 0:
            return self._start, self._start
        with self._lock:
            if k <= self._first:
                return self._replay(k).around(k)
            while k - self._first >= len(self._rows):
                self._append()
            i = k - self._first
            return self._rows[i - 1], self._rows[i]

    def _append(self) -> None:
        if len(self._rows) >= 2 * _KEEP:
            self._first += len(self._rows) - _KEEP
            del self._rows[:-_KEEP]
        self._rows.append(self._advance(self._first + len(self._rows), self._rows[-1]))

    def _replay(self, k: int) -> Steps[T]:
        """A second walker for the past, kept: tests ask for old truths in rising order."""
        if self._past is None or k <= self._past._first:
            self._past = Steps(self._start, self._advance)
        return self._past
