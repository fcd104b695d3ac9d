"""docs/engines.md, from the table of engines: ``python -m tokenwatt.servers.engines.docs > docs/engines.md``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypedDict

from tokenwatt.servers.engines import ENGINES, NOT_METERED
from tokenwatt.servers.engines.description import Engine, Gauge, Scheme, TokenCounter
from tokenwatt.types import SeriesKind

_MEASURED: Final = Path(__file__).parents[3] / "docs" / "engines-measured.json"


class Cost(TypedDict):
    """What one scrape of a real server cost. docs/engines-measured.json has lists of these by engine."""

    version: str
    page: str
    bytes: int
    cpu_ms: float
    """Of the server's processes."""
    date: str
    machine: str


_HEAD: Final = """# Engines

Which inference servers tokenwatt reads, what it reads of them, and what you may have to switch on. (This page is made from
`tokenwatt/servers/engines/` by `python -m tokenwatt.servers.engines.docs`.)

Each engine is read by the exact names below, and by nothing else. Names are compared with `:` taken for `_`, since servers spell them in
both ways. Only a counter is read as a counter: where a name turns out to be a gauge, the page is refused. What repeats the same tokens
under another name or label is never added.

## Is mine read?

**Counters move** says when the tokens of an answer show up. `step`: as they are generated. `completion`: all at once, when the request
ends; then a window shorter than the requests take has no figures, for they would be wrong. `first_token` and `arrival`: with the first
token, or before it.

**Cached** says whether prompt tokens that came from a prefix cache can be told from computed ones. Where it is `unknown`, all prompt tokens
count as computed, and there are no figures per processed token. Where an engine has more than one line under "What is read", the first that
fits its page holds, and these two may differ by line.
"""

_READ: Final = """## What is read

A name that ends in `_sum` is the sum of a histogram. Series that differ in other labels are summed, but for ranks that count the same
tokens again.
"""

_NEVER: Final = """## What is never asked

Some paths wake a model, load one, or take away what somebody else wants to read.
"""

_COST: Final = """## What a scrape costs the server

Measured on real servers with `make bench`. `-`: not measured yet.
"""

_OTHER: Final = """## Any other server

`engine: generic` in the settings, with the names of its counters: `counters: {prompt, prompt_cached, generation}`. Cached tokens are taken
off the prompt's: name them only where both counters move together.
"""

_NOT: Final = "## What cannot be metered\n"

_PLACES: Final[tuple[tuple[str, tuple[SeriesKind, ...]], ...]] = (
    ("prompt", ("prompt", "prompt_computed")),
    ("of it cached", ("prompt_cached",)),
    ("generation", ("generation",)),
    ("both in one", ("unsplit",)),
)


def page(measured: Mapping[str, Sequence[Cost]]) -> str:
    """The whole page, in Markdown. ``measured`` is by engine, and may be without some."""
    engines = ENGINES.values()
    schemes = ((e, s) for e in engines for s in e.schemes)
    parts = [
        _HEAD,
        *_table(("engine", "page", "counters move", "cached", "where its counters are missing"), (_engine(e) for e in engines)),
        _READ,
        *_table(("engine", *(title for title, _ in _PLACES), "running, waiting"), (_scheme(e, s) for e, s in schemes)),
        _OTHER,
        _NEVER,
        *_table(("engine", "path", "why"), ((e.name, f"`{path}`", why) for e in engines for path, why in e.never)),
        _COST,
        *_table(("engine", "version", "page", "bytes", "CPU of the server", "measured on"), _costs(measured)),
        _NOT,
        *(f"- {software.name} cannot be metered, because {software.because}." for software in NOT_METERED),
        "\n## Where this was read\n",
        *(f"- {e.name}: {e.source}" for e in engines if e.source),
    ]
    return "\n".join(parts) + "\n"


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _engine(engine: Engine) -> tuple[str, ...]:
    paths = ", ".join(f"`{path}`" for path in engine.metrics_paths)
    return engine.name, paths, _each(s.update for s in engine.schemes), _each(s.cached for s in engine.schemes), engine.no_counters


def _each(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values)) or "as the settings say"


def _scheme(engine: Engine, scheme: Scheme) -> tuple[str, ...]:
    gauges = ", ".join(series for g in (*scheme.running, *scheme.waiting) for series in _gauge(g)) or "-"
    return engine.name, *(_counters(scheme, kinds) for _, kinds in _PLACES), gauges


def _gauge(gauge: Gauge) -> Iterator[str]:
    if gauge.label is None:
        yield f"`{gauge.name}`"
    for value in gauge.values:
        yield f'`{gauge.name}{{{gauge.label}="{value}"}}`'


def _counters(scheme: Scheme, kinds: tuple[SeriesKind, ...]) -> str:
    return " ".join(series for c in scheme.counters for series in _series(c, kinds)) or "-"


def _series(counter: TokenCounter, kinds: tuple[SeriesKind, ...]) -> Iterator[str]:
    """The series of a counter that hold one of the kinds, as one would ask Prometheus for them."""
    if counter.kind in kinds:
        others = ",".join(f'{counter.label}!="{value}"' for value, kind in counter.kinds if kind != counter.kind)
        yield f"`{counter.name}{{{others}}}`" if others else f"`{counter.name}`"
    else:
        for value, kind in counter.kinds:
            if kind in kinds:
                yield f'`{counter.name}{{{counter.label}="{value}"}}`'


def _costs(measured: Mapping[str, Sequence[Cost]]) -> Iterator[tuple[str, ...]]:
    for engine in ENGINES:
        for cost in measured.get(engine, ()):
            size, cpu = f"{cost['bytes']:,}", f"{cost['cpu_ms']:g} ms"
            yield engine, cost["version"], f"`{cost['page']}`", size, cpu, f"{cost['date']}, {cost['machine']}"
        if engine not in measured:
            yield engine, "-", "-", "-", "-", "-"


if __name__ == "__main__":
    sys.stdout.write(page(json.loads(_MEASURED.read_text()) if _MEASURED.exists() else {}))
