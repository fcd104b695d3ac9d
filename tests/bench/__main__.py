"""`make bench`: measures, prints tables, asserts nothing. Only figures of one run are to be compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from tests.bench import accuracy, cost, politeness, proxy, ring

Row = tuple[str, float, str, str]

PARTS: tuple[tuple[str, str, Callable[[], Iterable[Row]]], ...] = (
    ("ring", "Counter rings: C and its Python twin, alternating", ring.measure),
    ("cost", "The daemon: 8 GPUs at 10 Hz, 8 servers at 1 Hz, a scrape each 15 s", cost.measure),
    ("proxy", "The metering proxy: with it and without it, in turns", proxy.measure),
    ("accuracy", "The books against the truth of a simulation", accuracy.measure),
    ("politeness", "What metering costs the servers that are metered", politeness.measure),
)


def main(names: list[str]) -> int:
    """Measure the parts named, or all."""
    unknown = set(names) - {name for name, _, _ in PARTS}
    if unknown:
        print(f"There is no part {', '.join(sorted(unknown))}; the parts are: {', '.join(name for name, _, _ in PARTS)}", file=sys.stderr)
        return 2
    for name, title, measure in PARTS:
        if not names or name in names:
            print(f"\n{title}\n", flush=True)
            for what, value, unit, goal in measure():
                print(f"  {what:<56} {value:>14,.2f} {unit:<12} {goal}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
