"""What a ring answers, by worked examples. Every test runs on both implementations."""

import random
from array import array
from fractions import Fraction
from math import floor

import pytest

from tokenwatt.ring import Ring

MIN, MAX = -(2**63), 2**63 - 1
S = 10**9


def make(ring_type: type[Ring], points: list[tuple[int, int]], tiers: tuple[tuple[int, int], ...] = ((64, 0),)) -> Ring:
    ring = ring_type(tiers)
    for t, v in points:
        ring.append(t, v)
    return ring


def kept(ring: Ring) -> list[tuple[int, int]]:
    numbers = array("q", ring.points()).tolist()
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_an_empty_ring_has_no_points_and_no_values(ring_type: type[Ring]) -> None:
    ring = ring_type([(2, 0)])
    assert (len(ring), ring.first, ring.last, ring.points()) == (0, None, None, b"")
    assert ring.slope_extremes(0, 100, 10) is None
    assert ring.slope_percentiles(0, 100, 10, [500]) is None
    with pytest.raises(LookupError):
        ring.value_at(0)
    with pytest.raises(LookupError):
        ring.delta(0, 1)


def test_one_point_is_the_value_at_all_times(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(5, 7)])
    assert [ring.value_at(t) for t in (MIN, 4, 5, 6, MAX)] == [7] * 5
    assert ring.delta(MIN, MAX) == 0
    assert ring.first == ring.last == (5, 7)


def test_value_between_points_is_on_the_line_rounded_down(ring_type: type[Ring]) -> None:
    rising = make(ring_type, [(0, 0), (3, 10)])
    assert [rising.value_at(t) for t in range(-1, 5)] == [0, 0, 3, 6, 10, 10]
    falling = make(ring_type, [(0, 0), (3, -10)])
    assert [falling.value_at(t) for t in range(4)] == [0, -4, -7, -10]


def test_delta_and_paired_delta(ring_type: type[Ring]) -> None:
    joules = make(ring_type, [(0, 0), (10, 1000), (20, 1500)])
    tokens = make(ring_type, [(5, 0), (15, 40)])
    assert joules.delta(5, 15) == 1250 - 500
    assert joules.delta(7, 7) == 0
    assert joules.paired_delta(tokens, 5, 15) == (750, 40)
    assert joules.paired_delta(joules, -10, 100) == (1500, 1500)


def test_times_and_values_at_the_ends_of_int64_are_exact(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(MIN, MIN), (MAX, MAX)])
    for t in (MIN, MIN + 1, -1, 0, 1, MAX - 1, MAX):
        assert ring.value_at(t) == t
    falling = make(ring_type, [(MIN, MAX), (MAX, MIN)])
    for t in (MIN, MIN + 1, -1, 0, 1, MAX - 1, MAX):
        assert falling.value_at(t) == -1 - t
    with pytest.raises(OverflowError):
        ring.delta(MIN, MAX)
    assert ring.delta(0, MAX) == MAX


@pytest.mark.parametrize("seed", range(5))
def test_products_of_more_than_64_bits_are_rounded_down_too(ring_type: type[Ring], seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        t0, t, t1 = sorted(rng.randint(MIN, MAX) for _ in range(3))  # all different, as good as surely
        v0, v1 = rng.randint(MIN, MAX), rng.randint(MIN, MAX)
        ring = make(ring_type, [(t0, v0), (t1, v1)])
        assert ring.value_at(t) == floor(v0 + Fraction((v1 - v0) * (t - t0), t1 - t0))


def test_a_full_tier_hands_its_oldest_to_the_next_which_thins(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(t, 10 * t) for t in range(12)], tiers=((3, 0), (2, 4)))
    # 0 and 4 were kept by the second tier; 8 went there when 11 came, and put out 0.
    assert kept(ring) == [(4, 40), (8, 80), (9, 90), (10, 100), (11, 110)]
    assert (ring.first, ring.last, len(ring)) == ((4, 40), (11, 110), 5)
    assert [ring.value_at(t) for t in (0, 4, 6, 8, 9, 11, 12)] == [40, 40, 60, 80, 90, 110, 110]


def test_the_last_tier_forgets(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(t, t) for t in range(1000)], tiers=((2, 0), (2, 0)))
    assert kept(ring) == [(t, t) for t in range(996, 1000)]


def test_spacing_on_the_first_tier_forgets_points_but_not_their_order(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(0, 0), (9, 1), (10, 2)], tiers=((4, 10),))
    ring.append(15, 3)
    assert kept(ring) == [(0, 0), (10, 2)]
    with pytest.raises(ValueError, match="later"):
        ring.append(12, 4)
    with pytest.raises(ValueError, match="later"):
        ring.extend(array("q", [15, 4]))


def test_the_widest_spacing_keeps_one_point_a_tier(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(MIN, 0), (0, 1), (MAX, 2)], tiers=((2, MAX),))
    assert kept(ring) == [(0, 1), (MAX, 2)]


def test_extend_is_append_many_times(ring_type: type[Ring]) -> None:
    points = [(t * 3, t * t) for t in range(100)]
    tiers = ((5, 0), (7, 10), (4, 40))
    ring = ring_type(tiers)
    assert ring.extend(array("q", [n for point in points for n in point])) == 100
    assert ring.points() == make(ring_type, points, tiers).points()
    assert ring.extend(array("q")) == 0
    assert ring.last == points[-1]


def test_nbytes_is_the_store_of_all_tiers(ring_type: type[Ring]) -> None:
    ring = ring_type(((1200, 0), (4000, S), (1500, 60 * S)))
    assert ring.nbytes == 16 * 6700
    ring.append(0, 0)
    assert ring.nbytes == 16 * 6700


def test_slopes_are_per_second_and_rounded_down(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(0, 0), (S, 100), (2 * S, 400), (3 * S, 350)])
    assert ring.slope_extremes(0, 3 * S, S) == (-50, 300)
    assert ring.slope_percentiles(0, 3 * S, S, range(0, 1001, 250)) == (-50, -50, 100, 300, 300)
    assert make(ring_type, [(0, 0), (3, -1)]).slope_extremes(0, 3, 3) == (-333333334, -333333334)


def test_sub_spans_are_counted_back_from_the_end(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(0, 0), (4, 4), (10, 100)])
    assert ring.slope_extremes(0, 10, 6) == (16 * S, 16 * S)  # [4, 10]; [-2, 4] starts too early
    assert ring.slope_extremes(5, 10, 6) is None


def test_sub_spans_past_the_newest_point_are_left_out_and_the_others_stay(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(0, 0), (10, 10), (20, 40)])
    assert ring.slope_percentiles(-100, 35, 5, [0, 1000]) == (S, 3 * S)
    assert ring.slope_extremes(12, 35, 4) == (3 * S, 3 * S)  # [15, 19] of [31, 35] ... [11, 15]
    assert ring.slope_extremes(21, 35, 2) is None
    assert ring.slope_extremes(-50, -10, 2) is None


@pytest.mark.parametrize("n", [1, 2, 3, 7, 1000, 1001])
def test_percentiles_are_nearest_rank(ring_type: type[Ring], n: int) -> None:
    ring = ring_type([(2048, 0)])
    total = 0
    for k in range(n + 1):
        ring.append(k * S, total)
        total += k * 7919 % n + 1  # 7919 is prime: the slopes are 1..n in a mixed order
    for p in (0, 1, 10, 499, 500, 501, 990, 999, 1000):
        rank = max(1, -(-p * n // 1000))
        assert ring.slope_percentiles(0, n * S, S, [p]) == (rank,)
    assert ring.slope_percentiles(0, n * S, S, []) == ()


def test_slopes_need_not_have_a_delta_inside_int64(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(0, MIN), (100 * S, MAX)])
    slope = (MAX - MIN) // 100
    assert ring.slope_extremes(0, 100 * S, 100 * S) == (slope, slope)
    with pytest.raises(OverflowError):
        make(ring_type, [(0, MIN), (S, MAX)]).slope_extremes(0, S, S // 2)
    with pytest.raises(OverflowError):
        make(ring_type, [(0, 0), (1, MAX)]).slope_percentiles(0, 1, 1, [500])


def test_wide_slopes_are_rounded_down_and_checked_on_both_sides(ring_type: type[Ring]) -> None:
    for step, sign in ((7 * S + 1, 1), (7 * S + 1, -1), (2 * S + 1, -1), (2 * S + 1, 1)):
        ring = make(ring_type, [(0, -sign * MAX), (step, sign * MAX)])
        slope = sign * 2 * MAX * S // step
        assert ring.slope_extremes(0, step, step) == (slope, slope)
    for v0, v1 in ((MIN, MAX), (MAX, MIN)):
        with pytest.raises(OverflowError):
            make(ring_type, [(0, v0), (S, v1)]).slope_extremes(0, S, S)


def test_a_step_wider_than_int64_can_hold_from_end_to_end(ring_type: type[Ring]) -> None:
    ring = make(ring_type, [(MIN, 0), (MAX, 2**62)])
    assert ring.slope_extremes(MIN, MAX, MAX) == (S // 4, S // 4)
    assert ring.slope_extremes(MIN, MAX, 2**62) == (S // 4, S // 4)
