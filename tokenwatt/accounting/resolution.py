"""How long a server's counter needs: in a shorter window its tokens are not those of the window's joules.

A counter that moves at the end of a request says nothing while the request runs, and then all at once. The same holds where it moves at the
first token or when a request arrives. The time it needs is the longer of two: what requests took (95 of 100 of those that ended in the
last 5 to 10 minutes, from the server's own histogram), and the longest time of the last 10 minutes in which requests ran and it stood.

Where the server does not tell whether requests run, the time between two moves of the counter holds them and pauses alike. It is taken as
long as it is not over 10 minutes, and for 10 minutes: too long after a pause, but not for ever after a quiet night.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

from tokenwatt.types import ServerReading

SECOND_NS = 1_000_000_000

TRAILING_NS: Final = 600 * SECOND_NS
ROTATE_NS: Final = TRAILING_NS // 2

QUANTILE: Final = 0.95

Buckets = tuple[tuple[float, int], ...]
"""(upper bound in seconds, count so far), ascending, the last bound infinite."""


def quantile_s(buckets: Buckets, quantile: float) -> float | None:
    """A quantile, interpolated within its bucket; in the infinite one the largest finite bound. None: no observations, or no bounds."""
    if len(buckets) < 2 or not buckets[-1][1]:
        return None
    rank = quantile * buckets[-1][1]
    for (low_s, below), (high_s, upto) in pairwise(((0.0, 0), *buckets[:-1])):
        if upto >= rank and upto > below:
            return low_s + (high_s - low_s) * (rank - below) / (upto - below)
    return buckets[-2][0]


class Latency:
    """How long the requests took that ended of late. Where none did, what was known last holds: requests do not grow short by waiting."""

    def __init__(self) -> None:
        self.p95_s: float | None = None
        self._since: Buckets = ()
        self._next: Buckets = ()
        self._rotated_ns: int | None = None
        self._last: Buckets = ()

    def read(self, t_ns: int, buckets: Buckets) -> None:
        """Take the histogram as it is now. What it held at the first reading counts, until there is something newer."""
        if self._rotated_ns is None or t_ns - self._rotated_ns >= ROTATE_NS:
            self._since, self._next, self._rotated_ns = self._next, self._last, t_ns
        if buckets == self._last:
            return
        if not _follows(buckets, self._last):
            self._since = self._next = ()
        self._last = buckets
        before = self._since or tuple((bound, 0) for bound, _ in buckets)
        late = tuple((bound, count - then) for (bound, count), (_, then) in zip(buckets, before, strict=True))
        p95_s = quantile_s(late, QUANTILE)
        self.p95_s = self.p95_s if p95_s is None else p95_s


class Stretches:
    """The longest time of late over which the counter stood though requests ran, or, where that is not told, between two of its moves."""

    def __init__(self) -> None:
        self._since_ns: int | None = None
        """Where the present stretch began."""
        self._longest: deque[tuple[int, int]] = deque()
        """(end, length) of stretches: the ends ascend and the lengths fall, so the first is the longest, and there are few."""

    def read(self, t_ns: int, *, running: int | None, moved: bool) -> None:
        """Take one reading. ``moved``: the counter did, since the reading before."""
        if self._since_ns is not None and (moved or running == 0):
            if running is not None or t_ns - self._since_ns <= TRAILING_NS:
                self._end(t_ns, t_ns - self._since_ns)
            self._since_ns = None
        if running != 0 and self._since_ns is None:
            self._since_ns = t_ns
        while self._longest and t_ns - self._longest[0][0] > TRAILING_NS:
            self._longest.popleft()

    def longest_ns(self, t_ns: int, *, running: int | None) -> int | None:
        """The longest one, the present one too. None: none was seen of late."""
        present_ns = t_ns - self._since_ns if self._since_ns is not None else 0
        if running is None and (present_ns > TRAILING_NS or not self._longest):
            present_ns = 0
        longest_ns = max(present_ns, self._longest[0][1] if self._longest else 0)
        return longest_ns or None

    def _end(self, t_ns: int, length_ns: int) -> None:
        while self._longest and self._longest[-1][1] <= length_ns:
            self._longest.pop()
        self._longest.append((t_ns, length_ns))


class Resolution:
    """The time that one server's counter needs."""

    def __init__(self) -> None:
        self.needed_ns: int | None = None
        """None: not known. 0: the counter moves at each step."""
        self._latency = Latency()
        self._stretches = Stretches()

    def read(self, reading: ServerReading, *, moved: bool) -> None:
        """Take one reading."""
        if reading.latency:
            self._latency.read(reading.t_ns, reading.latency)
        self._stretches.read(reading.t_ns, running=reading.running, moved=moved)
        if reading.update == "step":
            self.needed_ns = 0
            return
        told_ns = round(self._latency.p95_s * 1e9) if self._latency.p95_s is not None else None
        seen_ns = self._stretches.longest_ns(reading.t_ns, running=reading.running)
        known = [ns for ns in (told_ns, seen_ns) if ns is not None]
        # Where requests can be seen and none ran of late, what was known last holds.
        if known or reading.running is None or self.needed_ns == 0:
            self.needed_ns = max(known, default=None)


def _follows(buckets: Buckets, before: Buckets) -> bool:
    """Whether one state of a histogram can come after another."""
    if not before:
        return True
    return [b for b, _ in buckets] == [b for b, _ in before] and all(c >= then for (_, c), (_, then) in zip(buckets, before, strict=True))
