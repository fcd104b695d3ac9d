"""From a page of metrics to the counters of one server."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tokenwatt.servers.engines import MODEL_LABELS, PROCESS_START, Engine, Scheme, TokenCounter
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.exposition import Labels, MetricType, Page, Wanted
from tokenwatt.types import Cached, SeriesKey

_INT64_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Counters:
    """What a page says of one server at one instant."""

    tokens: dict[SeriesKey, int]
    cached: Cached
    running: int | None
    waiting: int | None
    process_start: float | None


def wanted(engines: Iterable[Engine]) -> Wanted:
    """The metrics that these engines are read by."""
    types: dict[str, MetricType] = {}
    for engine in engines:
        types |= dict.fromkeys(engine.counters(), "counter")
        types |= {engine.running: "gauge", engine.waiting: "gauge"}
    return Wanted(types | {PROCESS_START: "gauge"})


def scheme_of(page: Page, engine: Engine) -> Scheme | None:
    """How the server behind this page counts. None: it is no such engine, or does not count."""
    return next((s for s in engine.schemes if all(page.has(c.name) for c in s.counters)), None)


def read_counters(page: Page, engine: Engine, scheme: Scheme) -> Counters:
    """The counters of a page.

    Raises:
        Unusable: a counter holds what no server can mean. The whole page is refused then: a part of its tokens would be a wrong sum.
    """
    tokens: dict[SeriesKey, int] = {}
    for counter in scheme.counters:
        for sample in page.samples.get(counter.name, ()):
            key = _key(counter, sample.labels)
            if key in tokens:
                raise Unusable(f"{counter.name} counts the same tokens twice: {key.labels or 'no labels'}")
            tokens[key] = _tokens(counter.name, sample.value)
    return Counters(
        tokens,
        scheme.cached,
        running=_sum(page, engine.running),
        waiting=_sum(page, engine.waiting),
        process_start=_process_start(page),
    )


@lru_cache(maxsize=1024)
def _key(counter: TokenCounter, labels: Labels) -> SeriesKey:
    """The key of one series. The same ones come every second: they are made once."""
    rest = dict(labels)
    model_label = next((name for name in MODEL_LABELS if name in rest), None)
    kind = counter.kind_of(rest)
    model = rest.pop(model_label) if model_label else ""
    return SeriesKey(model, kind, ",".join(f"{name}={_quoted(value)}" for name, value in sorted(rest.items())))


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _tokens(name: str, value: float) -> int:
    if not 0 <= value <= _INT64_MAX or not value.is_integer():  # NaN fails the comparison
        raise Unusable(f"{name} is {value:g}, which is no number of tokens: nothing of the page is used", rejected=True)
    return int(value)


def _sum(page: Page, name: str) -> int | None:
    """A gauge over all engines behind the page. None: not there, or not a number."""
    values = [s.value for s in page.samples.get(name, ())]
    return round(math.fsum(values)) if values and all(0 <= v < math.inf for v in values) else None


def _process_start(page: Page) -> float | None:
    # More than one: the page is of several processes, and none of them is the server.
    values = [s.value for s in page.samples.get(PROCESS_START, ())]
    return values[0] if len(values) == 1 and 0 < values[0] < math.inf else None
