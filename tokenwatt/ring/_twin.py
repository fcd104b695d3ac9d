"""The counter ring in Python: what documents the ring, what type checkers see, and what runs where the C extension is not built.

The C ring gives the same answers and the same errors, to the bit; the tests hold the two against each other.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import index
from threading import Lock
from typing import TYPE_CHECKING, Final, NoReturn, final

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc only from 3.12 on

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_NS_PER_S: Final = 10**9
_MAX_TIERS: Final = 4
_MAX_CAPACITY: Final = 2**22
_MAX_SPANS: Final = 1_000_000
_POINT_BYTES: Final = 16


def _int64(number: int) -> int:
    number = index(number)
    if not _INT64_MIN <= number <= _INT64_MAX:
        raise OverflowError("a number does not fit int64")
    return number


def _result(number: int) -> int:
    if not _INT64_MIN <= number <= _INT64_MAX:
        raise OverflowError("the result does not fit int64")
    return number


def _checked_tiers(tiers: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    items = tuple(tiers)
    if not 1 <= len(items) <= _MAX_TIERS:
        raise ValueError("a ring has 1 to 4 tiers")
    pairs = []
    for item in items:
        numbers = tuple(item)
        if len(numbers) != 2:
            raise ValueError("a tier is (capacity, spacing_ns)")
        pairs.append((index(numbers[0]), index(numbers[1])))
    before = 0
    for capacity, spacing in pairs:
        if not 2 <= capacity <= _MAX_CAPACITY:
            raise ValueError("a tier's capacity is 2 to 4194304 points")
        if not before <= spacing <= _INT64_MAX:
            raise ValueError("a tier's spacing is 0 or more and not less than that of the tier before it")
        before = spacing
    return pairs


class _Tier:
    """A circular store of points: ``count`` of them from ``start``, times and values apart so that bisect can search the times."""

    __slots__ = ("capacity", "count", "spacing", "start", "times", "values")

    def __init__(self, capacity: int, spacing: int) -> None:
        self.capacity = capacity
        self.spacing = spacing
        self.times = array("q", bytes(8 * capacity))
        self.values = array("q", bytes(8 * capacity))
        self.start = 0
        self.count = 0

    def last(self) -> int:
        """Where the newest point is. The tier must hold one."""
        return (self.start + self.count - 1) % self.capacity

    def find(self, t: int) -> int:
        """Where the last point not after ``t`` is. The tier must hold one."""
        if self.start == 0 or self.times[0] <= t:
            end = self.start if self.start > 0 else self.count
            return bisect_right(self.times, t, 0, end) - 1
        return bisect_right(self.times, t, self.start, self.capacity) - 1

    def copy_to(self, out: array[int]) -> None:
        """Add all points to ``out``, oldest first: t, v, t, v ..."""
        pairs = array("q", bytes(_POINT_BYTES * self.count))
        head = min(self.count, self.capacity - self.start)
        pairs[0 : 2 * head : 2] = self.times[self.start : self.start + head]
        pairs[1 : 2 * head : 2] = self.values[self.start : self.start + head]
        pairs[2 * head :: 2] = self.times[: self.count - head]
        pairs[2 * head + 1 :: 2] = self.values[: self.count - head]
        out.extend(pairs)


@final
class Ring:
    """A series of points (t_ns, value), newest ones in full and older ones thinned, in memory fixed at creation.

    Times are int64 nanoseconds of one clock and strictly increase; values are int64 and cumulative, in any unit. ``tiers`` is
    (capacity, spacing_ns) for each tier, newest first: 1 to 4 tiers of 2 to 2**22 points, no spacing less than the one before it. A tier
    that is offered a point keeps it if it is empty or the point is at least its spacing later than the last it kept, and forgets it
    otherwise. Every point is offered to the first tier (spacing 0 keeps them all); what leaves a tier because it is full is offered to the
    next. ValueError on tiers that cannot be.

    One thread may write while others read: each call finds each ring as it is between two writes. A ring is not pickled, copied or
    subclassed.
    """

    __slots__ = ("_lock", "_nbytes", "_offered", "_tiers")

    def __init__(self, tiers: Sequence[tuple[int, int]]) -> None:
        pairs = _checked_tiers(tiers)
        self._lock = Lock()  # here a thread may be interrupted in the middle of a call, which in C it is not
        self._tiers = [_Tier(capacity, spacing) for capacity, spacing in pairs]
        self._nbytes = sum(_POINT_BYTES * capacity for capacity, _ in pairs)
        self._offered = 0  # the time of the last point offered, kept or not; of no meaning in an empty ring

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type 'tokenwatt.ring._twin.Ring' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle or copy a Ring")

    # --- writing

    def append(self, t_ns: int, value: int, /) -> None:
        """Offer one point. ValueError unless it is later than the last one offered; OverflowError outside int64."""
        t, v = _int64(t_ns), _int64(value)
        with self._lock:
            if self._tiers[0].count and t <= self._offered:
                raise ValueError("a point must be later than the one before it")
            self._push(t, v)
            self._offered = t

    def extend(self, pairs: Buffer, /) -> int:
        """Offer the points of a C-contiguous buffer of native int64: t_ns, value, t_ns, value ... Returns how many there were.

        All or nothing: ValueError, and no point stored, for half a pair or unless each point is later than the one before it. TypeError for
        what is not a buffer of format ``q`` or ``l`` with 8 bytes an item, BufferError for one that is not C-contiguous.
        """
        with memoryview(pairs) as view:
            if view.itemsize != 8 or view.format not in ("q", "l"):
                raise TypeError("the buffer must hold native int64 (format 'q' or 'l')")
            if not view.c_contiguous:
                raise BufferError("the buffer must be C-contiguous")
            if view.nbytes % _POINT_BYTES:
                raise ValueError("the buffer must hold whole (t_ns, value) pairs")
            numbers = array("q", view.tobytes())
        with self._lock:
            self._extend(numbers)
        return len(numbers) // 2

    def _extend(self, numbers: array[int]) -> None:
        before = self._offered if self._tiers[0].count else None
        for t in numbers[::2]:
            if before is not None and t <= before:
                raise ValueError("a point must be later than the one before it")
            before = t
        for t, v in zip(numbers[::2], numbers[1::2], strict=True):
            self._push(t, v)
        if before is not None:
            self._offered = before

    def _push(self, t: int, v: int) -> None:
        for tier in self._tiers:
            if tier.count and t - tier.times[tier.last()] < tier.spacing:
                return
            if tier.count < tier.capacity:
                tier.times[tier.count], tier.values[tier.count] = t, v
                tier.count += 1
                return
            start = tier.start
            oldest = tier.times[start], tier.values[start]
            tier.times[start], tier.values[start] = t, v
            tier.start = (start + 1) % tier.capacity
            t, v = oldest

    # --- reading

    def __len__(self) -> int:
        with self._lock:
            return sum(tier.count for tier in self._tiers)

    @property
    def first(self) -> tuple[int, int] | None:
        """The oldest kept point, (t_ns, value); None when the ring is empty."""
        with self._lock:
            return self._first()

    def _first(self) -> tuple[int, int] | None:
        for tier in reversed(self._tiers):
            if tier.count:
                return tier.times[tier.start], tier.values[tier.start]
        return None

    @property
    def last(self) -> tuple[int, int] | None:
        """The newest kept point, (t_ns, value); None when the ring is empty."""
        with self._lock:
            return self._last()

    def _last(self) -> tuple[int, int] | None:
        tier = self._tiers[0]
        return (tier.times[tier.last()], tier.values[tier.last()]) if tier.count else None

    @property
    def nbytes(self) -> int:
        """Bytes of the point store: 16 for each point of capacity, used or not."""
        return self._nbytes

    def points(self) -> bytes:
        """The kept points, oldest first, as native int64: t_ns, value, t_ns, value ..."""
        out = array("q")
        with self._lock:
            for tier in reversed(self._tiers):
                tier.copy_to(out)
        return out.tobytes()

    def value_at(self, t_ns: int, /) -> int:
        """The value at an instant: on the line between its neighbours, rounded down; outside the points, that of the nearest.

        LookupError when the ring is empty.
        """
        t = _int64(t_ns)
        with self._lock:
            return self._value_at(t)

    def _value_at(self, t: int) -> int:
        newer = None
        for tier in self._tiers:
            if not tier.count:
                break
            if tier.times[tier.start] <= t:
                i = tier.find(t)
                if i != tier.last():
                    j = (i + 1) % tier.capacity
                    newer = tier.times[j], tier.values[j]
                return _between((tier.times[i], tier.values[i]), newer, t)
            newer = tier.times[tier.start], tier.values[tier.start]
        if newer is None:
            raise LookupError("the ring is empty")
        return newer[1]

    def delta(self, t0_ns: int, t1_ns: int, /) -> int:
        """value_at(t1_ns) - value_at(t0_ns). ValueError if t1_ns < t0_ns; OverflowError outside int64; LookupError when empty."""
        return self._delta(_int64(t0_ns), _int64(t1_ns))

    def paired_delta(self, other: Ring, t0_ns: int, t1_ns: int, /) -> tuple[int, int]:
        """(self.delta(t0_ns, t1_ns), other.delta(t0_ns, t1_ns)). TypeError unless other is a Ring of the same implementation."""
        if not isinstance(other, Ring):
            raise TypeError("the other must be a Ring of the same implementation")
        t0, t1 = _int64(t0_ns), _int64(t1_ns)
        return self._delta(t0, t1), other._delta(t0, t1)

    def _delta(self, t0: int, t1: int) -> int:
        if t1 < t0:
            raise ValueError("a span must not end before it starts")
        with self._lock:
            return _result(self._value_at(t1) - self._value_at(t0))

    # --- slopes

    def slope_extremes(self, t0_ns: int, t1_ns: int, step_ns: int, /) -> tuple[int, int] | None:
        """The least and the greatest slope of the sub-spans, in units per second rounded down; None when there is no sub-span.

        A sub-span is [t1_ns - (k + 1) * step_ns, t1_ns - k * step_ns] for any whole k >= 0 for which it lies inside [t0_ns, t1_ns] and
        between the oldest and the newest kept point. ValueError if step_ns <= 0, if t1_ns < t0_ns, or above 1,000,000 sub-spans;
        OverflowError if any slope is outside int64.
        """
        t0, t1, step = _int64(t0_ns), _int64(t1_ns), _int64(step_ns)
        with self._lock:
            slopes = self._slopes(t0, t1, step)
        return (min(slopes), max(slopes)) if slopes else None

    def slope_percentiles(self, t0_ns: int, t1_ns: int, step_ns: int, per_mille: Sequence[int], /) -> tuple[int, ...] | None:
        """Percentiles, by nearest rank, of the slopes that ``slope_extremes`` looks at; None when there is no sub-span.

        ``per_mille`` is 0 to 1000 (0 is the least slope), ValueError otherwise.
        """
        t0, t1, step = _int64(t0_ns), _int64(t1_ns), _int64(step_ns)
        asked = tuple(map(_checked_per_mille, tuple(per_mille)))
        with self._lock:
            slopes = self._slopes(t0, t1, step)
        if not slopes:
            return None
        slopes.sort()
        return tuple(slopes[max(-(-p * len(slopes) // 1000), 1) - 1] for p in asked)

    def _slopes(self, t0: int, t1: int, step: int) -> list[int]:
        """The slopes, oldest first."""
        if step <= 0:
            raise ValueError("a step must be 1 ns or more")
        if t1 < t0:
            raise ValueError("a span must not end before it starts")
        first, last = self._first(), self._last()
        if first is None or last is None:
            return []
        low, high = max(t0, first[0]), min(t1, last[0])
        back = (t1 - low) // step  # steps from t1 back to the oldest edge that is not before low
        skip = -((high - t1) // step)  # and to the newest that is not after high
        if high < low or back <= skip:
            return []
        if back - skip > _MAX_SPANS:
            raise ValueError("more than 1000000 sub-spans")
        edges = [self._value_at(t1 - k * step) for k in range(back, skip - 1, -1)]
        return [_result((to - of) * _NS_PER_S // step) for of, to in pairwise(edges)]


def _between(lo: tuple[int, int], hi: tuple[int, int] | None, t: int) -> int:
    """The line through two points at t, rounded down; ``lo`` where there is no later point."""
    if hi is None or lo[0] == t:
        return lo[1]
    return lo[1] + (hi[1] - lo[1]) * (t - lo[0]) // (hi[0] - lo[0])


def _checked_per_mille(number: int) -> int:
    number = _int64(number)
    if not 0 <= number <= 1000:
        raise ValueError("a percentile is 0 to 1000 per mille")
    return number
