"""From a page of metrics to the counters of one server.

A page is read in three steps: ``wanted`` says what to take from it, ``scheme_of`` how the server behind it counts, and ``read_counters``
what it counted. The scheme that a start of the server was first read by holds for that start: series of two schemes are not the same, and a
change would count tokens twice. The first page may be too early to tell: see ``is_settled``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s

from tokenwatt.servers.engines.description import PROCESS_START, Engine, Scheme, TokenCounter
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.page.exposition import Labels, Page
from tokenwatt.servers.page.figures import INT64_MAX, asleep, latency, process_start, requests
from tokenwatt.servers.page.wanted import MetricType, Wanted
from tokenwatt.types import Cached, SeriesKey, SeriesKind, Update


@dataclass(frozen=True, slots=True)
class Counters:
    """What a page says of one server at one instant. The fields mean what those of ``ServerReading`` mean."""

    tokens: dict[SeriesKey, int]
    cached: Cached
    update: Update
    running: int | None
    waiting: int | None
    process_start: float | None
    latency: tuple[tuple[float, int], ...] | None
    asleep: bool | None


# --- what is wanted ----------------------------------------------------------------------------------------------------------------------


def wanted(engines: Iterable[Engine]) -> Wanted:
    """The metrics that tell these engines apart, and by which each of their schemes is read.

    Raises:
        ValueError: a name is none that can be read, or must be two things.
    """
    types: dict[str, MetricType] = {}
    for engine in engines:
        for scheme in engine.schemes:
            _merge(types, _types(engine, scheme))
    return Wanted(types)


def wanted_by(engine: Engine, scheme: Scheme) -> Wanted:
    """The metrics of a server whose scheme is settled: fewer lines, and fewer bytes from one that filters its page."""
    return Wanted(_types(engine, scheme))


def _types(engine: Engine, scheme: Scheme) -> dict[str, MetricType]:
    types: dict[str, MetricType] = {PROCESS_START: "gauge"}
    for counter in scheme.counters:
        _merge(types, {counter.name: counter.of})
    for gauge in (*scheme.running, *scheme.waiting, *([engine.asleep_gauge] if engine.asleep_gauge else [])):
        _merge(types, {gauge.name: "gauge"})
    if scheme.latency is not None:
        _merge(types, {f"{scheme.latency}_bucket": "histogram"})
    for mark in (*scheme.marks, *scheme.needs):
        _merge(types, {mark: "mark"})
    return types


def _merge(types: dict[str, MetricType], more: dict[str, MetricType]) -> None:
    for name, type_ in more.items():
        if types.get(name, "mark") == "mark":
            types[name] = type_
        elif type_ not in (types[name], "mark"):
            raise ValueError(f"{name} cannot be a {types[name]} and a {type_}")


# --- how a server counts -----------------------------------------------------------------------------------------------------------------


def scheme_of(page: Page, engine: Engine) -> Scheme | None:
    """How the server behind this page counts, as far as the page can tell. None: it is no such engine, or it does not count.

    The first scheme whose counters are all there; else the first with some; else, of an engine that shows nothing before its first request,
    the first.
    """
    holding = [scheme for scheme in engine.schemes if holds(page, scheme)]
    # True counts as 1, and max gives the first of equals.
    return max(holding, key=lambda s: (all(page.has(c.name) for c in s.counters), is_settled(page, s)), default=None)


def is_settled(page: Page, scheme: Scheme) -> bool:
    """Whether the page shows one of this scheme's counters. From then on it holds for this start of the server.

    Until then the page is a good reading without series, and ``scheme_of`` is asked again with the next one, of a page read for ``wanted``:
    a fresh SGLang shows neither its realtime nor its classic counters.
    """
    return any(page.has(c.name) for c in scheme.counters)


def holds(page: Page, scheme: Scheme) -> bool:
    """Whether the page may be of a server that counts so. Where it is not any more, another server answers."""
    if not all(map(page.has, scheme.needs)):
        return False
    if scheme.sparse:
        return any(map(page.has, scheme.marks))
    return all(page.has(c.name) for c in scheme.counters) and all(map(page.has, scheme.marks))


# --- what it counted ---------------------------------------------------------------------------------------------------------------------


def read_counters(page: Page, engine: Engine, scheme: Scheme) -> Counters:
    """The counters of a page.

    Raises:
        Unusable: a metric is not what it should be, or a counter holds what no server can mean. The whole page is refused then: a part of
            its tokens would be a wrong sum.
    """
    if page.wrong:
        _refuse_wrong(page, _types(engine, scheme))
    return Counters(
        _read_tokens(page, engine, scheme),
        _cached(page, scheme),
        scheme.update,
        running=requests(page, scheme.running, engine.same_work),
        waiting=requests(page, scheme.waiting, engine.same_work),
        process_start=process_start(page),
        latency=latency(page.samples.get(f"{scheme.latency}_bucket", ())),
        asleep=asleep(page, engine.asleep_gauge),
    )


def _refuse_wrong(page: Page, types: dict[str, MetricType]) -> None:
    for name, reason in page.wrong.items():
        if types.get(name, "mark") != "mark":
            raise Unusable(reason)


def _read_tokens(page: Page, engine: Engine, scheme: Scheme) -> dict[SeriesKey, int]:
    tokens: dict[SeriesKey, int] = {}
    for counter in scheme.counters:
        for sample in page.samples.get(counter.name, ()):
            key = _key(counter, engine.model_labels, engine.same_work, engine.private_labels, sample.labels)
            if key is None:
                continue
            if key in tokens:
                raise Unusable(f"{counter.name} counts the same tokens twice: {key.labels or 'no labels'}")
            tokens[key] = _tokens(counter.name, sample.value)
    return tokens


@lru_cache(maxsize=1024)
def _key(
    counter: TokenCounter, model_labels: tuple[str, ...], same_work: tuple[str, ...], private: tuple[str, ...], labels: Labels
) -> SeriesKey | None:
    """The key of one series; None where it is not to be counted. The same ones come every second: they are made once."""
    rest = dict(labels)
    kind: SeriesKind | None = counter.kind_of(rest)
    if kind is None:
        return None
    model_label = next((name for name in model_labels if name in rest), None)
    model = rest.pop(model_label) if model_label else ""
    rank = {name: rest.pop(name) for name in same_work if name in rest}
    rest.update((name, _digest(rest[name])) for name in private if name in rest)
    return SeriesKey(model, kind, _written(rest), _written(rank))


def _written(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={_quoted(value)}" for name, value in sorted(labels.items()))


def _digest(value: str) -> str:
    """What stands for a value that must not be kept. The same each time: what is stored goes on after a restart."""
    return blake2s(value.encode(), digest_size=8).hexdigest()


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _tokens(name: str, value: float) -> int:
    if not 0 <= value <= INT64_MAX or not value.is_integer():  # NaN fails the comparison
        raise Unusable(f"{name} is {value:g}, which is no number of tokens: nothing of the page is used", rejected=True)
    return int(value)


def _cached(page: Page, scheme: Scheme) -> Cached:
    if scheme.sparse and not all(page.has(c.name) for c in scheme.counters if c.kind == "prompt_cached"):
        return "unknown"
    return scheme.cached
