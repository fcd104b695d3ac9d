"""The rings the books keep, and what they may cost.

A point is 16 bytes. Memory is taken when a ring is made and touched as it fills:

| ring | one for each | points | KiB |
|---|---|---|---|
| owner | server and board it holds | 1,300 | 20 |
| board | board | 1,300 | 20 |
| agreement (two) | board | 340 | 5 |
| series | server, model and figure (three energies, up to four kinds of tokens), and one a server | 2,260 | 35 |

A node of 8 boards and 8 servers with one model each: 8 x 20 + 8 x 20 + 16 x 5 + 8 x 7 x 35 KiB = 2.3 MiB.
"""

from __future__ import annotations

from tokenwatt.ring import Ring

SECOND_NS = 1_000_000_000


def owner_ring() -> Ring:
    """A server's part in one board at each power tick: a minute of them, then a second apart for as long as an interval may stay open."""
    return Ring([(600, 0), (700, SECOND_NS)])


def board_ring() -> Ring:
    """A board's energy at each power tick, likewise."""
    return Ring([(600, 0), (700, SECOND_NS)])


def agreement_ring() -> Ring:
    """Counter or integral, once a second, for the five minutes they are compared over."""
    return Ring([(340, 0)])


def series_ring() -> Ring:
    """A cumulative figure at each closed interval: five minutes of them, an hour in steps of 10 s, a day in steps of a minute."""
    return Ring([(400, 0), (400, 10 * SECOND_NS), (1460, 60 * SECOND_NS)])
