"""Counters that fall without a reason: either the server began anew and nobody saw it, or several workers answer in turn.

Workers that share a port and no counters make them go up and down for ever. To take each fall for a restart would count the tokens of all
their lives again and again; so what comes with a fall is held back until it is known which of the two it is.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from tokenwatt.accounting.folding import Page
from tokenwatt.types import SeriesKey

SECOND_NS = 1_000_000_000

CLEAN_READINGS: Final = 2
"""So many readings in a row must show no fall, until what was held back counts."""

FALLS: Final = 3
FALLS_WITHIN_NS: Final = 60 * SECOND_NS
"""So many falls within this time are no restarts."""

CALM_NS: Final = 600 * SECOND_NS
"""After this long without a fall counters are believed again."""

UNRELIABLE: Final = (
    "Its counters go up and down: several workers answer in turn, each with counters of its own, so its tokens cannot be counted. "
    "Name each worker's own port in the settings, or start the server with PROMETHEUS_MULTIPROC_DIR set."
)


class Sawtooth:
    """Holds back what may be another worker's, and says when it is.

    A page that falls, and those after it, are held. Two pages in a row without a fall: it was a restart, and all that was held counts. A
    page back over the one before the fall: the same worker answers again; of all that was held only what it made since can be true, and
    that is held in turn.
    """

    def __init__(self) -> None:
        self.unreliable = False
        self._held: dict[SeriesKey, int] | None = None
        """None: nothing is in doubt."""
        self._clean_left = 0
        self._before: Page | None = None
        """The page before the first fall that is in doubt, and what was held then."""
        self._held_before: Page = {}
        self._falls_ns: deque[int] = deque(maxlen=FALLS)

    def begin(self, *, one_process: bool) -> None:
        """A new baseline. Where nothing tells whether the next page is of the same process, its rise may be the way to another worker: it
        is held for one reading."""
        self.unreliable = False
        self._falls_ns.clear()
        self._before = None
        self._held, self._clean_left = (None, 0) if one_process else ({}, CLEAN_READINGS)

    def release(self) -> Page:
        """What was held, where something else tells of a restart: it counts."""
        held, self._held, self._before = self._held or {}, None, None
        return held

    def give_up(self, t_ns: int) -> None:
        """Several workers answer. What was held is dropped."""
        self.release()
        self.unreliable = True
        self._falls_ns.append(t_ns)

    def calm(self, t_ns: int, *, fell: bool) -> bool:
        """While unreliable: whether it fell long enough ago."""
        if fell:
            self._falls_ns.append(t_ns)
        return t_ns - self._falls_ns[-1] > CALM_NS

    def settle(self, t_ns: int, page: Page, last: Page, deltas: Page, *, fell: bool) -> Page:
        """What counts of a page, whose ``deltas`` are to the page ``last``. Empty where it is held, and where it becomes unreliable."""
        if fell:
            self._falls_ns.append(t_ns)
            if len(self._falls_ns) == FALLS and t_ns - self._falls_ns[0] <= FALLS_WITHIN_NS:
                self.give_up(t_ns)
                return {}
        if self._before is not None and _over(page, self._before) and not _over(last, self._before):
            deltas = {key: value - self._before.get(key, 0) for key, value in page.items()}
            self._held, self._before = _sum(self._held_before, deltas), None
            self._clean_left = CLEAN_READINGS
            return {}
        if fell:
            if self._before is None:
                self._before, self._held_before = dict(last), self._held or {}
            self._held, self._clean_left = _sum(self._held or {}, deltas), CLEAN_READINGS
            return {}
        if self._held is None:
            return deltas
        self._held = _sum(self._held, deltas)
        self._clean_left -= 1
        return self.release() if not self._clean_left else {}

    @property
    def in_doubt(self) -> bool:
        """Whether tokens are held."""
        return self._held is not None and any(self._held.values())


def _over(page: Page, before: Page) -> bool:
    return all(page.get(key, value) >= value for key, value in before.items())


def _sum(one: Page, other: Page) -> dict[SeriesKey, int]:
    out = dict(one)
    for key, value in other.items():
        out[key] = out.get(key, 0) + value
    return out
