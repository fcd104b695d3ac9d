"""Ports of one process that show the same counters: they are one server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tokenwatt.types import SeriesKey

REPEATING: Final = frozenset(
    {
        # Both write one recorder's page on the port of their API and again on --prometheus-port, which is 9000 unless they are told
        # otherwise (text-generation-inference: router/src/main.rs; text-embeddings-inference: router/src/prometheus.rs).
        "tgi",
        "tei",
    }
)
"""Engines that show their counters on two ports: two of one process are never two servers."""

Counters = Mapping[SeriesKey, int]


def same(before: Counters, other: Counters, after: Counters) -> bool:
    """Whether ``other``, read between ``before`` and ``after`` of another port, may be of the same counters.

    It lies between them, then. While tokens move, no two readings are equal; and hardly ever does one server keep to another's numbers.
    """
    return before.keys() == other.keys() == after.keys() and all(before[key] <= n <= after[key] for key, n in other.items())
