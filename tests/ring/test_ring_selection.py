"""Which implementation runs, and that neither grows."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
from array import array
from contextlib import suppress
from typing import Any

import pytest

from tokenwatt.ring import Ring

PAGE = os.sysconf("SC_PAGE_SIZE")


def chosen(*, before: str = "", **environment: str) -> str:
    """What a fresh interpreter chooses."""
    code = f"{before}\nimport tokenwatt.ring as r; print(r.IMPLEMENTATION, r.Ring.__module__)"
    clean = {name: value for name, value in os.environ.items() if name != "TOKENWATT_PURE_PYTHON"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_extension_is_taken_where_it_is_built(both: tuple[type[Ring], type[Ring]]) -> None:
    assert chosen() == "c tokenwatt.ring._ring"
    assert chosen(TOKENWATT_PURE_PYTHON="0") == "c tokenwatt.ring._ring"


def test_the_environment_asks_for_python() -> None:
    assert chosen(TOKENWATT_PURE_PYTHON="1") == "python tokenwatt.ring._twin"


def test_python_is_taken_where_the_extension_is_missing() -> None:
    assert chosen(before="import sys; sys.modules['tokenwatt.ring._ring'] = None") == "python tokenwatt.ring._twin"


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


class Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]


def in_use() -> int:
    """Bytes that malloc has given out; what Python's own allocator holds is not among them. 0 where the C library does not tell."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def exercise(ring_type: type[Ring], rounds: int) -> None:
    """Some 65 calls a round, on rings that come and go, on every way out that has something to give back."""
    ok, bad = array("q", range(1000, 1040)), array("q", [2000, 0, 1, 0])
    refused: list[Any] = [bad, b"x", array("q", [5]), None]
    wrong: list[Any] = [[(1, 0)], [(2, 0), (2, None)], [(2, 0, 0)], 5]
    for _ in range(rounds):
        ring = ring_type([(50, 0), (20, 7), (200, 50)])
        for t in range(30):
            ring.append(t * 3, t * 10**9)
        ring.extend(ok)
        for pairs in refused:
            with suppress(ValueError, TypeError):
                ring.extend(pairs)
        for tiers in wrong:
            with suppress(ValueError, TypeError):
                ring_type(tiers)
        for t in range(5):
            ring.value_at(t)
            ring.delta(t, 2000)
            ring.paired_delta(ring, t, 2000)
            assert None not in (ring.first, ring.last, ring.nbytes, ring.points())
        ring.slope_extremes(0, 1000, 7)
        ring.slope_percentiles(0, 90, 1, [0, 500, 1000])
        with suppress(OverflowError):
            ring.slope_percentiles(0, 1030, 1, [500])
        with suppress(ValueError):
            ring.slope_percentiles(0, 90, 1, [500, 1001])


def test_a_million_calls_leave_nothing_behind(ring_type: type[Ring]) -> None:
    """Counted, not weighed: a leak may fill holes that the process has already, and then its size does not change."""
    rounds = 16_000 if ring_type.__module__.endswith("_ring") else 300
    exercise(ring_type, 100)
    growths = []
    for _ in range(3):  # a leak comes every time, at least 16 bytes or a block a round
        gc.collect()
        bytes_before, blocks_before = in_use(), sys.getallocatedblocks()
        exercise(ring_type, rounds)
        gc.collect()
        growths.append((in_use() - bytes_before, sys.getallocatedblocks() - blocks_before))
        if growths[-1][0] < 8 * rounds and growths[-1][1] < rounds // 2:
            return
    pytest.fail(f"grew by (bytes, objects) {growths}")


def test_a_large_ring_costs_memory_only_where_it_is_used(both: tuple[type[Ring], type[Ring]]) -> None:
    c, _ = both
    before = resident()
    ring = c([(2**22, 0)])
    ring.append(0, 0)
    assert ring.nbytes == 2**26
    assert resident() - before < 2**22
    del ring
    assert resident() - before < 2**22


def test_a_ring_gives_its_store_back(ring_type: type[Ring]) -> None:
    pairs = array("q", range(2 * 200_000))
    ring_type([(200_000, 0)]).extend(pairs)
    before = resident()
    for _ in range(5):
        ring_type([(200_000, 0)]).extend(pairs)
    assert resident() - before < 5 * 2**20


@pytest.mark.parametrize("n", [1023, 1024, 5000])
def test_percentiles_with_and_without_the_gil_are_the_same(both: tuple[type[Ring], type[Ring]], n: int) -> None:
    answers = []
    for each in both:
        ring = each([(8192, 0)])
        ring.extend(array("q", [x for k in range(n + 1) for x in (k, k * k * 2654435761 % 1000003)]))
        answers.append(ring.slope_percentiles(0, n, 1, [0, 10, 500, 990, 1000]))
    assert answers[0] == answers[1] is not None


def test_one_thread_writes_while_others_read(ring_type: type[Ring]) -> None:
    ring = ring_type([(3000, 0), (3000, 5)])
    ring.extend(array("q", [x for t in range(3000) for x in (t, t)]))
    done = threading.Event()
    answers: list[tuple[int, ...] | None] = []

    def read() -> None:
        while not done.is_set():
            first, last = ring.first, ring.last
            assert first is not None
            assert last is not None
            answers.append(ring.slope_percentiles(first[0], last[0], 1, (0, 1000)))  # long enough to let the GIL go
            assert ring.value_at(last[0]) == last[0]

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for t in range(3000, 15_000):
        ring.append(t, t)
    done.set()
    for reader in readers:
        reader.join()
    assert answers
    assert set(answers) <= {(10**9, 10**9), None}
