"""What a page says of a server beside its tokens: requests, sleep, start, latency. A figure that is no number is not known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from tokenwatt.servers.engines.description import PROCESS_START, Gauge
from tokenwatt.servers.page.exposition import Labels, Page, Sample

INT64_MAX: Final = 2**63 - 1


def requests(page: Page, gauges: Sequence[Gauge], same_work: tuple[str, ...]) -> int | None:
    """Gauges over all engines behind the page. None: none is there, or one is no number."""
    total = 0.0
    there = False
    for gauge in gauges:
        largest: dict[Labels, float] = {}
        for sample in _chosen(page, gauge):
            if not 0 <= sample.value <= INT64_MAX:
                return None
            rest = tuple(label for label in sample.labels if label[0] not in same_work) if same_work else sample.labels
            largest[rest] = max(largest.get(rest, 0.0), sample.value)
            there = True
        total += math.fsum(largest.values())
    return round(total) if there else None


def _chosen(page: Page, gauge: Gauge) -> Iterable[Sample]:
    series = page.samples.get(gauge.name, ())
    label = gauge.label
    return series if label is None else [s for s in series if dict(s.labels).get(label, "") in gauge.values]


def asleep(page: Page, gauge: Gauge | None) -> bool | None:
    """Whether a gauge of sleep is above 0. None: there is none."""
    values = [] if gauge is None else [s.value for s in _chosen(page, gauge)]
    return any(value > 0 for value in values) if values else None


def process_start(page: Page) -> float | None:
    """When the server started, as the page tells it. None: it does not, or not of one process."""
    # More than one: the page is of several processes, and none of them is the server.
    values = [s.value for s in page.samples.get(PROCESS_START, ())]
    return values[0] if len(values) == 1 and 0 < values[0] < math.inf else None


def latency(buckets: Sequence[Sample]) -> tuple[tuple[float, int], ...] | None:
    """The buckets of all series together. None: there are none, or they are no histogram.

    Of series with different bounds, those that all have: only there the counts add up.
    """
    series: dict[Labels, dict[float, float]] = {}
    for labels, count in buckets:
        bound, rest = _bound(labels)
        if math.isnan(bound) or not 0 <= count <= INT64_MAX:
            return None
        series.setdefault(rest, {})[bound] = count
    if not series:
        return None
    common = sorted(set.intersection(*(set(counts) for counts in series.values())))
    totals = [round(math.fsum(counts[bound] for counts in series.values())) for bound in common]
    if not common or common[-1] != math.inf or totals != sorted(totals):
        return None
    return tuple(zip(common, totals, strict=True))


@lru_cache(maxsize=1024)
def _bound(labels: Labels) -> tuple[float, Labels]:
    """The bound of one bucket, NaN where it has none, and the series that it is of."""
    try:
        bound = float(dict(labels)["le"])
    except (KeyError, ValueError):
        bound = math.nan
    return bound, tuple(label for label in labels if label[0] != "le")
