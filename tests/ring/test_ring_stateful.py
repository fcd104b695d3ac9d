"""The C ring, its twin and a naive oracle do the same things in the same order and must answer the same, to the bit, errors included."""

from array import array
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from math import ceil, floor
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tokenwatt.ring import Ring

MIN, MAX = -(2**63), 2**63 - 1
NS_PER_S = 10**9
Point = tuple[int, int]


class Oracle:
    """A ring as its definition reads: a list per tier, every point looked at, fractions."""

    def __init__(self, tiers: Sequence[tuple[int, int]]) -> None:
        self.limits = list(tiers)
        self.tiers: list[list[Point]] = [[] for _ in tiers]
        self.offered: int | None = None

    def append(self, t: int, v: int) -> None:
        if not (MIN <= t <= MAX and MIN <= v <= MAX):
            raise OverflowError
        if self.offered is not None and t <= self.offered:
            raise ValueError
        self.offered = t
        self.offer(0, (t, v))

    def offer(self, k: int, point: Point) -> None:
        if k == len(self.tiers):
            return
        capacity, spacing = self.limits[k]
        tier = self.tiers[k]
        if tier and point[0] < tier[-1][0] + spacing:
            return
        if len(tier) == capacity:
            self.offer(k + 1, tier.pop(0))
        tier.append(point)

    def extend(self, points: list[Point]) -> int:
        times = [t for t, _ in points]
        bounds = [self.offered, *times] if self.offered is not None else times
        if any(b <= a for a, b in pairwise(bounds)):
            raise ValueError
        for t, v in points:
            self.append(t, v)
        return len(points)

    def kept(self) -> list[Point]:
        return [point for tier in reversed(self.tiers) for point in tier]

    def value_at(self, t: int) -> int:
        if not MIN <= t <= MAX:
            raise OverflowError
        points = self.kept()
        if not points:
            raise LookupError
        before = [point for point in points if point[0] <= t]
        after = [point for point in points if point[0] > t]
        if not before or not after:
            return points[0][1] if not before else points[-1][1]
        (t0, v0), (t1, v1) = before[-1], after[0]
        return floor(v0 + Fraction((v1 - v0) * (t - t0), t1 - t0))

    def delta(self, t0: int, t1: int) -> int:
        if not (MIN <= t0 <= MAX and MIN <= t1 <= MAX):
            raise OverflowError
        if t1 < t0:
            raise ValueError
        change = self.value_at(t1) - self.value_at(t0)
        if not MIN <= change <= MAX:
            raise OverflowError
        return change

    def slopes(self, t0: int, t1: int, step: int) -> list[int]:
        if not all(MIN <= n <= MAX for n in (t0, t1, step)):
            raise OverflowError
        if step <= 0 or t1 < t0:
            raise ValueError
        points = self.kept()
        if not points:
            return []
        low, high = max(t0, points[0][0]), min(t1, points[-1][0])
        slopes = []
        # Not from k = 0: t1 may be 2**64 ns past the last point. Two k too early and on until before low is the same set.
        k = max(0, (t1 - high) // step - 2)
        while t1 - (k + 1) * step >= low:
            if t1 - k * step <= high:
                slopes.append(floor(Fraction((self.value_at(t1 - k * step) - self.value_at(t1 - (k + 1) * step)) * NS_PER_S, step)))
            k += 1
        if not all(MIN <= slope <= MAX for slope in slopes):
            raise OverflowError
        return slopes

    def slope_extremes(self, t0: int, t1: int, step: int) -> tuple[int, int] | None:
        slopes = self.slopes(t0, t1, step)
        return (min(slopes), max(slopes)) if slopes else None

    def slope_percentiles(self, t0: int, t1: int, step: int, per_mille: Sequence[int]) -> tuple[int, ...] | None:
        if not all(0 <= p <= 1000 for p in per_mille):
            raise ValueError
        slopes = sorted(self.slopes(t0, t1, step))
        return tuple(slopes[max(ceil(Fraction(p * len(slopes), 1000)) - 1, 0)] for p in per_mille) if slopes else None


def outcome(call: Callable[[], object]) -> tuple[object, str]:
    """What came back, or the type of the error; and the error's words, which only the twins must share."""
    try:
        return call(), ""
    except (ValueError, OverflowError, LookupError) as error:
        return type(error), str(error)


edges = st.sampled_from([MIN, MIN + 1, -1, 0, 1, MAX - 1, MAX])
anything = st.one_of(edges, st.integers(MIN, MAX), st.integers(-100, 100))
beyond = st.one_of(anything, st.sampled_from([MIN - 1, MAX + 1, 10**30]))
gaps = st.one_of(st.integers(1, 30), st.integers(1, 2**40), st.integers(2**58, 2**62))
limits = st.lists(st.tuples(st.integers(2, 6), st.integers(0, 40)), min_size=1, max_size=4).map(
    lambda tiers: list(zip([c for c, _ in tiers], sorted(s for _, s in tiers), strict=True))
)


class Machine(RuleBasedStateMachine):
    """One ring of each implementation and the oracle."""

    types: tuple[type[Ring], ...]

    @initialize(tiers=limits, data=st.data(), wide=st.booleans())
    def make(self, tiers: list[tuple[int, int]], data: st.DataObject, wide: bool) -> None:
        self.rings = [each(tiers) for each in self.types]
        self.others = [each(tiers) for each in self.types]
        self.oracle, self.other = Oracle(tiers), Oracle(tiers)
        # Wide walks span all of int64 in a few points; narrow ones have the room to fill and thin every tier.
        self.gaps = gaps if wide else st.integers(1, 30)
        self.values = anything if wide else st.integers(-(10**6), 10**6)
        self.origin = data.draw(st.sampled_from([MIN, -(2**62)] if wide else [MIN, 0, MAX - 5000]))

    def same(self, real: Callable[[Ring, Ring], object], expected: Callable[[], object]) -> None:
        answers = [outcome(partial(real, ring, other)) for ring, other in zip(self.rings, self.others, strict=True)]
        assert answers[0] == answers[1]
        assert answers[0][0] == outcome(expected)[0]

    def instant(self, data: st.DataObject) -> int:
        """A time at, next to or between points more often than chance has it."""
        points = self.oracle.kept()
        if not points or data.draw(st.integers(0, 7)) == 0:
            return data.draw(beyond)
        a = data.draw(st.sampled_from(points))[0]
        b = data.draw(st.sampled_from(points))[0]
        return max(MIN, min(MAX, data.draw(st.sampled_from([a, a - 1, a + 1, (a + b) // 2, b + (b - a)]))))

    def after_last(self, data: st.DataObject) -> int:
        offered = self.oracle.offered
        return self.origin if offered is None else offered + data.draw(self.gaps)

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        t, v = self.after_last(data), data.draw(self.values)
        self.same(lambda ring, _: ring.append(t, v), lambda: self.oracle.append(t, v))

    @rule(t=beyond, v=beyond)
    def append_anything(self, t: int, v: int) -> None:
        if t < 10**6 + self.origin:  # a jump to the end of time would leave no room for more
            self.same(lambda ring, _: ring.append(t, v), lambda: self.oracle.append(t, v))

    @rule(data=st.data(), steps=st.lists(st.integers(1, 20), max_size=40), flaw=st.integers(0, 6))
    def extend(self, data: st.DataObject, steps: list[int], flaw: int) -> None:
        t = self.after_last(data)
        points = []
        for step in steps:
            points.append((min(t, MAX), data.draw(self.values)))
            t += step
        if flaw == 1 and len(points) > 1:
            points[-1] = (points[0][0], 0)
        if flaw == 2 and points and self.oracle.offered is not None:
            points[0] = (self.oracle.offered, 0)
        buffer = array("q", [n for point in points for n in point])
        self.same(lambda ring, _: ring.extend(buffer), lambda: self.oracle.extend(points))

    @rule(points=st.lists(st.tuples(st.integers(MIN, MAX), anything), max_size=5, unique_by=lambda point: point[0]).map(sorted))
    def extend_other(self, points: list[Point]) -> None:
        buffer = array("q", [n for point in points for n in point])
        self.same(lambda _, other: other.extend(buffer), lambda: self.other.extend(points))

    @rule(data=st.data())
    def value_at(self, data: st.DataObject) -> None:
        t = self.instant(data)
        self.same(lambda ring, _: ring.value_at(t), lambda: self.oracle.value_at(t))

    @rule(data=st.data())
    def deltas(self, data: st.DataObject) -> None:
        t0, t1 = self.instant(data), self.instant(data)
        if data.draw(st.integers(0, 9)):
            t0, t1 = min(t0, t1), max(t0, t1)
        self.same(lambda ring, _: ring.delta(t0, t1), lambda: self.oracle.delta(t0, t1))
        self.same(
            lambda ring, other: ring.paired_delta(other, t0, t1),
            lambda: (self.oracle.delta(t0, t1), self.other.delta(t0, t1)),
        )

    @precondition(lambda self: self.oracle.offered is not None)
    @rule(data=st.data(), per_mille=st.lists(st.integers(-1, 1001), max_size=4))
    def slopes(self, data: st.DataObject, per_mille: list[int]) -> None:
        t0, t1 = sorted((self.instant(data), self.instant(data)))
        points = self.oracle.kept()
        span = points[-1][0] - points[0][0]
        step = data.draw(st.one_of(st.integers(max(1, span // 40), span + 2), st.sampled_from([0, -1, MAX, MAX + 1])))
        self.same(lambda ring, _: ring.slope_extremes(t0, t1, step), lambda: self.oracle.slope_extremes(t0, t1, step))
        if any(not MIN <= n <= MAX for n in (t0, t1, step)):
            return  # which of two errors comes first is the twins' affair, not the oracle's
        self.same(
            lambda ring, _: ring.slope_percentiles(t0, t1, step, per_mille),
            lambda: self.oracle.slope_percentiles(t0, t1, step, per_mille),
        )

    @invariant()
    def same_points(self) -> None:
        if not hasattr(self, "oracle"):
            return
        points = self.oracle.kept()
        expected: Any = array("q", [n for point in points for n in point]).tobytes()
        for ring in self.rings:
            assert ring.points() == expected
            assert len(ring) == len(points)
            assert (ring.first, ring.last) == ((points[0], points[-1]) if points else (None, None))


def test_c_twin_and_oracle_agree(both: tuple[type[Ring], type[Ring]]) -> None:
    class Bound(Machine):
        types = both

    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Bound,
        settings=settings(max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=checks),
    )
