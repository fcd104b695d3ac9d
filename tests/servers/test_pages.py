"""Each page in pages/ beside a .json that says how it reads: by its engine alone, and where ``auto``, by finding its engine among all.

``tokens`` are those of a server that was read from zero: ranks that count the same are folded, cached tokens are off the prompt's.
``settled`` is false where the page shows none of the engine's counters yet.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest

from tests.servers.conftest import PAGES
from tokenwatt.servers.engines import ENGINES
from tokenwatt.servers.engines.description import Engine
from tokenwatt.servers.engines.generic import generic
from tokenwatt.servers.page.counters import Counters, holds, is_settled, read_counters, scheme_of, wanted, wanted_by
from tokenwatt.servers.page.exposition import read
from tokenwatt.servers.page.wanted import Wanted
from tokenwatt.types import SeriesKey

EXPECTED = {path.stem: json.loads(path.read_text()) for path in sorted(PAGES.glob("*.json"))}
ALL_WANTED = wanted(ENGINES.values())
REQUIRED = {"engine", "source", "content_type", "tokens", "cached", "update", "running", "waiting", "asleep", "latency_requests", "auto"}


def folded(tokens: Mapping[SeriesKey, int]) -> dict[str, dict[str, int]]:
    work: dict[SeriesKey, int] = defaultdict(int)
    for key, n in tokens.items():
        work[key._replace(rank="")] = max(n, work[key._replace(rank="")])
    by_model: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, n in work.items():
        by_model[key.model][key.kind] += n
    for kinds in by_model.values():
        if "prompt" in kinds:
            kinds["prompt_computed"] += kinds.pop("prompt") - kinds.get("prompt_cached", 0)
    return without_zeros(by_model)


def without_zeros(tokens: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    counted = {model: {kind: n for kind, n in kinds.items() if n} for model, kinds in tokens.items()}
    return {model: kinds for model, kinds in counted.items() if kinds}


def read_as(name: str, engine: Engine, names: Wanted) -> Counters:
    page = read((PAGES / f"{name}.txt").read_bytes(), names, EXPECTED[name]["content_type"])
    scheme = scheme_of(page, engine)
    assert scheme is not None
    return read_counters(page, engine, scheme)


def engine_of(expected: dict[str, Any]) -> Engine:
    return generic(**expected["counters"]) if expected["engine"] == "generic" else ENGINES[expected["engine"]]


def test_every_page_says_how_it_reads() -> None:
    assert {path.stem for path in PAGES.glob("*.txt")} == EXPECTED.keys()
    assert all(expected.keys() >= REQUIRED and expected["source"] for expected in EXPECTED.values())


def test_every_engine_has_a_page() -> None:
    assert {expected["engine"] for expected in EXPECTED.values()} == {*ENGINES, "generic"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_page_reads_as_it_should(name: str) -> None:
    expected = EXPECTED[name]
    engine = engine_of(expected)
    got = read_as(name, engine, wanted([engine]))
    assert folded(got.tokens) == without_zeros(expected["tokens"])
    assert {
        "cached": got.cached,
        "update": got.update,
        "running": got.running,
        "waiting": got.waiting,
        "asleep": got.asleep,
        "latency_requests": got.latency[-1][1] if got.latency else None,
    } == {field: expected[field] for field in ("cached", "update", "running", "waiting", "asleep", "latency_requests")}


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if expected["auto"]])
def test_a_page_tells_its_engine(name: str) -> None:
    body = (PAGES / f"{name}.txt").read_bytes()
    page = read(body, ALL_WANTED, EXPECTED[name]["content_type"])
    engine = next(engine for engine in ENGINES.values() if scheme_of(page, engine) is not None)
    assert engine.name == EXPECTED[name]["engine"]
    assert read_as(name, engine, ALL_WANTED) == read_as(name, engine, wanted([engine]))


@pytest.mark.parametrize("name", EXPECTED)
def test_once_settled_a_page_reads_the_same_by_fewer_names(name: str) -> None:
    engine = engine_of(EXPECTED[name])
    body, content_type = (PAGES / f"{name}.txt").read_bytes(), EXPECTED[name]["content_type"]
    page = read(body, wanted([engine]), content_type)
    scheme = scheme_of(page, engine)
    assert scheme is not None
    assert is_settled(page, scheme) == EXPECTED[name].get("settled", bool(EXPECTED[name]["tokens"]))
    less = read(body, wanted_by(engine, scheme), content_type)
    assert holds(less, scheme)
    assert read_counters(less, engine, scheme) == read_counters(page, engine, scheme)


def test_pages_are_short() -> None:
    """Only the families that matter, and the traps."""
    assert {path.name for path in PAGES.glob("*.txt") if path.stat().st_size > 20_000} <= {"vllm-0.32.0.txt"}
