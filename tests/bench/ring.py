"""What the rings cost: C against Python, in one run, turn by turn.

The ring is the daemon's: 24 h at 10 Hz in three tiers. Times are the minimum of several rounds, and include the Python loop that calls.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from array import array
from collections.abc import Callable
from time import perf_counter_ns

from tokenwatt.ring._ring import Ring as CRing
from tokenwatt.ring._twin import Ring as PythonRing

Row = tuple[str, float, str, str]
Rings = tuple[type[PythonRing], type[PythonRing]]

NS_PER_S = 10**9
TIERS = ((1200, 0), (4000, NS_PER_S), (1500, 60 * NS_PER_S))
PERIOD_NS = NS_PER_S // 10
DAY = 24 * 3600 * 10
ROUNDS = 7


def feed(points: int, seed: int) -> array[int]:
    """A board of some 400 W sampled at 10 Hz a little irregularly, in microjoules."""
    rng = random.Random(seed)
    out = array("q")
    energy = 0
    for i in range(points):
        out.append(i * PERIOD_NS + rng.randrange(PERIOD_NS // 10))
        energy += rng.randrange(20_000_000, 60_000_000)
        out.append(energy)
    return out


def compare(c: Callable[[], object], python: Callable[[], object], times: int) -> tuple[float, float]:
    """Nanoseconds each of ``times`` took, at best: (C, Python), measured in turns so that both meet the same weather."""
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for i, function in enumerate((c, python)):
            start = perf_counter_ns()
            function()
            best[i] = min(best[i], (perf_counter_ns() - start) / times)
    return best[0], best[1]


def rows(name: str, unit: str, costs: tuple[float, float], goal: str = "") -> list[Row]:
    """One line for each implementation and one for how they compare."""
    return [
        (f"{name}, C", costs[0], unit, ""),
        (f"{name}, Python", costs[1], unit, ""),
        (f"{name}, Python / C", costs[1] / costs[0], "x", goal),
    ]


def window_queries(span_s: int, filled: list[tuple[PythonRing, PythonRing]]) -> tuple[float, float]:
    """Windows that end at random times of the last minute, so that no branch predictor learns the searches by heart."""
    rng = random.Random(3)
    newest = DAY * PERIOD_NS
    ends = [newest - rng.randrange(60 * NS_PER_S) for _ in range(2000)]
    spans = [(end - span_s * NS_PER_S, end) for end in ends]

    def ask(energy: PythonRing, tokens: PythonRing) -> Callable[[], None]:
        def loop() -> None:
            paired_delta = energy.paired_delta
            for t0, t1 in spans:
                paired_delta(tokens, t0, t1)

        return loop

    return compare(ask(*filled[0]), ask(*filled[1]), len(spans))


def appends(types: Rings) -> tuple[float, float]:
    numbers = feed(20_000, 4)
    points = list(zip(numbers[::2], numbers[1::2], strict=True))

    def fill(ring_type: type[PythonRing]) -> Callable[[], None]:
        def loop() -> None:
            append = ring_type(TIERS).append
            for t, v in points:
                append(t, v)

        return loop

    return compare(fill(types[0]), fill(types[1]), len(points))


def extends(types: Rings) -> tuple[float, float]:
    numbers = feed(50_000, 5)
    return compare(lambda: types[0](TIERS).extend(numbers), lambda: types[1](TIERS).extend(numbers), 50_000)


def percentiles(filled: list[tuple[PythonRing, PythonRing]]) -> tuple[float, float]:
    """An hour by the second."""
    newest = DAY * PERIOD_NS - NS_PER_S

    def ask(ring: PythonRing) -> Callable[[], object]:
        return lambda: ring.slope_percentiles(newest - 3600 * NS_PER_S, newest, NS_PER_S, (10, 500, 990))

    return compare(ask(filled[0][0]), ask(filled[1][0]), 1)


def grown_per_point(rings: int = 200) -> float:
    """Bytes by which this process grows for each point it keeps in C rings filled with a day: store, slack, objects and all."""
    day = feed(DAY, 1)
    CRing(TIERS).extend(day)
    before = resident()
    kept = [CRing(TIERS) for _ in range(rings)]
    for ring in kept:
        ring.extend(day)
    return (resident() - before) / sum(map(len, kept))


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure() -> list[Row]:
    """Rows of (name, value, unit, goal)."""
    types: Rings = (CRing, PythonRing)
    energy, tokens = feed(DAY, 1), feed(DAY, 2)
    filled = []
    for each in types:
        pair = each(TIERS), each(TIERS)
        pair[0].extend(energy)
        pair[1].extend(tokens)
        filled.append(pair)
    ring = filled[0][0]
    # A process of its own: what this one has freed already would be used again unseen.
    # -P: or the folder of this file, with names such as this one's, would come before the standard library.
    command = [sys.executable, "-P", __file__, "memory"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    grown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [
        *rows("60 s window of two rings", "ns", window_queries(60, filled), "at least 10"),
        *rows("1 h window of two rings", "ns", window_queries(3600, filled)),
        *rows("append", "ns", appends(types)),
        *rows("extend, each point", "ns", extends(types)),
        *rows("percentiles of an hour by the second", "ns", percentiles(filled)),
        ("store for each point kept after a day", ring.nbytes / len(ring), "bytes", "at most 25"),
        ("process memory for each point kept after a day", float(grown), "bytes", "at most 25"),
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["memory"]:
        print(grown_per_point())
    else:
        for name, value, unit, goal in measure():
            print(f"{name:50} {value:14,.1f} {unit:6} {goal}")
