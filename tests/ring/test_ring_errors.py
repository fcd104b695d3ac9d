"""What a ring refuses, and that nothing happened to it then. Every test runs on both implementations."""

import contextlib
import copy
import ctypes
import gc
import inspect
import pickle
import sys
from array import array
from collections.abc import Callable
from typing import Any

import pytest

from tokenwatt.ring import Ring

MAX = 2**63 - 1


class Index:
    """An integer that is not an int."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


@pytest.fixture
def ring(ring_type: type[Ring]) -> Ring:
    ring = ring_type([(4, 0), (4, 10)])
    ring.extend(array("q", [0, 0, 10, 100]))
    return ring


@pytest.mark.parametrize(
    "tiers",
    [
        [],
        [(2, 0)] * 5,
        [(1, 0)],
        [(0, 0)],
        [(-5, 0)],
        [(2**22 + 1, 0)],
        [(2**63, 0)],
        [(2**60, 0)] * 4,
        [(2, -1)],
        [(2, 2**63)],
        [(2, -(2**70))],
        [(2, 5), (2, 4)],
        [(2,)],
        [(2, 0, 0)],
        [()],
    ],
)
def test_tiers_that_cannot_be(ring_type: type[Ring], tiers: Any) -> None:
    with pytest.raises(ValueError, match="tier"):
        ring_type(tiers)


@pytest.mark.parametrize("tiers", [None, 5, [5], [(2.0, 0)], [(2, None)], [("2", "0")]])
def test_tiers_of_the_wrong_types(ring_type: type[Ring], tiers: Any) -> None:
    with pytest.raises(TypeError):
        ring_type(tiers)


def test_the_limits_themselves_are_allowed(ring_type: type[Ring]) -> None:
    assert ring_type(tiers=[(2, 0)] * 4).nbytes == 128
    assert ring_type([[Index(2), True], (2, MAX)]).nbytes == 64  # type: ignore[list-item]
    assert ring_type([(2**22, 0)]).nbytes == 2**26


@pytest.mark.parametrize("t", [10, 9, -(2**63)])
def test_a_point_that_is_not_later(ring: Ring, t: int) -> None:
    before = ring.points()
    with pytest.raises(ValueError, match="later"):
        ring.append(t, 1)
    assert ring.points() == before


@pytest.mark.parametrize(
    "call",
    [
        lambda ring, n: ring.append(n, 0),
        lambda ring, n: ring.append(20, n),
        lambda ring, n: ring.value_at(n),
        lambda ring, n: ring.delta(n, 5),
        lambda ring, n: ring.delta(0, n),
        lambda ring, n: ring.paired_delta(ring, n, 5),
        lambda ring, n: ring.paired_delta(ring, 0, n),
        lambda ring, n: ring.slope_extremes(n, 10, 1),
        lambda ring, n: ring.slope_extremes(0, n, 1),
        lambda ring, n: ring.slope_extremes(0, 10, n),
        lambda ring, n: ring.slope_percentiles(n, 10, 1, []),
        lambda ring, n: ring.slope_percentiles(0, n, 1, []),
        lambda ring, n: ring.slope_percentiles(0, 10, n, []),
        lambda ring, n: ring.slope_percentiles(0, 10, 1, [500, n]),
    ],
)
def test_numbers_that_are_no_int64(ring: Ring, call: Callable[[Ring, Any], object]) -> None:
    before = ring.points()
    for number in (2**63, -(2**63) - 1, 10**100, Index(2**64)):
        with pytest.raises(OverflowError):
            call(ring, number)
    for other in (1.0, "1", None, b"1"):
        with pytest.raises(TypeError):
            call(ring, other)
    assert ring.points() == before


def test_anything_with_an_index_is_an_integer(ring: Ring) -> None:
    ring.append(Index(20), Index(200))  # type: ignore[arg-type]
    assert ring.last == (20, 200)
    assert ring.value_at(True) == 10


def test_spans_and_steps_that_cannot_be(ring: Ring) -> None:
    with pytest.raises(ValueError, match="span"):
        ring.delta(5, 4)
    with pytest.raises(ValueError, match="span"):
        ring.paired_delta(ring, 5, 4)
    for step in (0, -1):
        with pytest.raises(ValueError, match="step"):
            ring.slope_extremes(0, 10, step)
    with pytest.raises(ValueError, match="span"):
        ring.slope_percentiles(5, 4, 1, [500])
    for p in (-1, 1001):
        with pytest.raises(ValueError, match="per mille"):
            ring.slope_percentiles(0, 10, 1, [500, p])
    with pytest.raises(TypeError):
        ring.slope_percentiles(0, 10, 1, 500)  # type: ignore[arg-type]


def test_more_than_a_million_sub_spans(ring_type: type[Ring]) -> None:
    ring = ring_type([(2, 0)])
    ring.extend(array("q", [0, 0, 1_000_001, 5]))
    with pytest.raises(ValueError, match="1000000"):
        ring.slope_extremes(0, 1_000_001, 1)
    assert ring.slope_extremes(1, 1_000_001, 1) == (0, 10**9)


@pytest.mark.parametrize(
    ("pairs", "error"),
    [
        (array("q", [20, 1, 30]), ValueError),
        (array("q", [20, 1, 20, 2]), ValueError),
        (array("q", [20, 1, 30, 2, 25, 3]), ValueError),
        (array("q", [10, 1]), ValueError),
        (array("Q", [20, 1]), TypeError),
        (array("d", [20, 1]), TypeError),
        (array("i", [20, 1]), TypeError),
        (b"0" * 16, TypeError),
        (memoryview(array("q", [20, 1, 30, 2]))[::2], BufferError),
        (memoryview(array("q", [20, 1]))[::-1], BufferError),
        ((ctypes.c_int64 * 2).from_buffer(array("q", [20, 1])), TypeError),  # '<l' or '<q': not called native
        ([20, 1], TypeError),
        (None, TypeError),
    ],
)
def test_extend_refuses_whole(ring: Ring, pairs: Any, error: type[Exception]) -> None:
    before = ring.points()
    with pytest.raises(error):
        ring.extend(pairs)
    assert ring.points() == before
    ring.append(11, 0)  # nor was any time taken note of


@pytest.mark.parametrize("times", [(5, 5), (5, 4), (-(2**63), 2**63 - 1, 0)])
def test_extend_of_an_empty_ring_refuses_whole(ring_type: type[Ring], times: tuple[int, ...]) -> None:
    ring = ring_type([(4, 0)])
    with pytest.raises(ValueError, match="later"):
        ring.extend(array("q", [n for t in times for n in (t, 0)]))
    assert len(ring) == 0
    ring.append(-(2**63), 0)


def test_extend_takes_any_contiguous_buffer_of_int64(ring: Ring) -> None:
    assert ring.extend(array("l", [11, 1])) == 1
    assert ring.extend(memoryview(bytes(array("q", [12, 2, 13, 3]))).cast("q")) == 2
    unaligned = memoryview(b"." + bytes(array("q", [14, 4])))[1:].cast("q")
    assert ring.extend(unaligned) == 1
    table = memoryview(bytes(array("q", [15, 5, 16, 6]))).cast("q", (2, 2))
    assert ring.extend(table) == 2
    assert ring.last == (16, 6)


def test_extend_lets_go_of_the_buffer(ring: Ring) -> None:
    numbers = array("q", [20, 1, 30, 2])
    ring.extend(numbers)
    with pytest.raises(ValueError, match="later"):
        ring.extend(numbers)
    numbers.append(0)  # BufferError while exported


def test_only_rings_of_one_kind_are_paired(ring: Ring, both: tuple[type[Ring], type[Ring]]) -> None:
    others = [other([(2, 0)]) for other in both if other is not type(ring)]
    for other in (*others, None, 5, object()):
        with pytest.raises(TypeError):
            ring.paired_delta(other, 0, 1)  # type: ignore[arg-type]


def test_a_paired_delta_needs_points_in_both(ring_type: type[Ring], ring: Ring) -> None:
    with pytest.raises(LookupError):
        ring.paired_delta(ring_type([(2, 0)]), 0, 1)
    with pytest.raises(LookupError):
        ring_type([(2, 0)]).paired_delta(ring, 0, 1)


@pytest.mark.parametrize("method", ["append", "delta", "paired_delta", "slope_extremes", "slope_percentiles", "value_at", "extend"])
def test_arguments_are_by_position_and_counted(ring: Ring, method: str) -> None:
    function = getattr(ring, method)
    for arguments in ((), (1,) * 9):
        with pytest.raises(TypeError):
            function(*arguments)
    with pytest.raises(TypeError):
        function(t_ns=1)


def test_a_ring_is_not_pickled_or_copied(ring: Ring) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(ring, protocol)
    for copier in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle"):
            copier(ring)


def test_a_ring_is_not_subclassed(ring_type: type[Ring]) -> None:
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (ring_type,), {})


def test_a_ring_has_no_other_attributes(ring: Ring) -> None:
    for name in ("first", "last", "nbytes", "anything"):
        with pytest.raises(AttributeError):
            setattr(ring, name, 1)


def test_an_index_that_writes_to_the_ring_finds_it_whole(ring: Ring) -> None:
    class Meddler:
        def __index__(self) -> int:
            for t in range(100, 200):
                ring.append(t, t)
            return 50

    with pytest.raises(ValueError, match="later"):
        ring.append(Meddler(), 0)  # type: ignore[arg-type]
    assert ring.last == (199, 199)


def test_both_have_the_same_surface(both: tuple[type[Ring], type[Ring]]) -> None:
    c, python = both
    public = {name for name in vars(python) if not name.startswith("_")}
    assert {name for name in vars(c) if not name.startswith("_")} == public
    for name in public:
        ours, theirs = getattr(c, name), getattr(python, name)
        assert ours.__doc__
        if callable(ours):
            assert parameters(ours) == parameters(theirs)


def parameters(method: Callable[..., object]) -> list[tuple[str, object]]:
    return [(each.name, each.kind) for each in inspect.signature(method).parameters.values() if each.name != "self"]


def test_a_ring_keeps_no_reference(ring: Ring) -> None:
    t, v, pairs = 10**15, 10**16, array("q", [10**17, 1])
    ring.append(10**14, 0)

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(x) for x in (t, v, pairs, ring, type(ring))]

    def use() -> None:
        for _ in range(100):
            ring.value_at(t)
            ring.paired_delta(ring, t, v)
            ring.slope_percentiles(0, t, v, (500,))
            with contextlib.suppress(ValueError):
                ring.append(t, v)
            with contextlib.suppress(ValueError):
                ring.extend(pairs)
            type(ring)([(2, 0)])

    before = counts()
    use()
    assert counts() == before
