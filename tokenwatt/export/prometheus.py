"""/metrics: the snapshot in Prometheus' text format 0.0.4.

The text format only, also for a scraper that prefers OpenMetrics: it is the cheaper one to write, and holds the same (there are no
exemplars, no units and no ``_created`` series here).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenwatt.export.families import FAMILIES, Family
from tokenwatt.export.text import encodable
from tokenwatt.snapshot import Snapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class SnapshotCollector(Collector):
    """The families of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Every family, also one without samples."""
        for family in FAMILIES:
            yield _metric(family, self._snapshot)


def render(snapshot: Snapshot) -> bytes:
    """The whole page. About 10 us a sample: call it off the event loop."""
    registry = CollectorRegistry(auto_describe=False)  # auto_describe would collect once more, to learn the names
    registry.register(SnapshotCollector(snapshot))
    return generate_latest(registry)


def _metric(family: Family, snapshot: Snapshot) -> Metric:
    kind = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for values, value in family.collect(snapshot):
        # What is not a number is not known, so it is left out: one NaN would make a NaN of every sum over it.
        if math.isfinite(value):
            metric.add_metric([encodable(v) for v in values], value)
    return metric
