"""How an engine is described: everything tokenwatt must know of it, as data. Nothing here runs.

Metric names are exact. A pattern on "tokens" would take tokens twice: engines show the same ones again by another label, as a gauge without
``_total``, as a subset, as a rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from tokenwatt.types import Cached, SeriesKind, Update

MODEL_LABELS: Final = ("model_name", "model", "served_model", "name")
"""Where the model's name is, in order: the engine's own label, then those of servers that pass its metrics on (Triton says ``model``)."""

PROCESS_START: Final = "process_start_time_seconds"


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """One cumulative count of tokens: a counter, or the sum of a histogram of tokens per request (``name`` is then the one with ``_sum``).

    Where a label tells kinds apart, ``kinds`` has its values, and ``kind`` is that of every other value. None: those series count nothing
    (a subset, a repetition).
    """

    name: str
    kind: SeriesKind | None
    label: str | None = None
    kinds: tuple[tuple[str, SeriesKind | None], ...] = ()
    of: Literal["counter", "histogram"] = "counter"

    def kind_of(self, labels: Mapping[str, str]) -> SeriesKind | None:
        """The kind of one of its series. None: it is not to be counted."""
        return self.kind if self.label is None else dict(self.kinds).get(labels.get(self.label, ""), self.kind)


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that holds now, summed over its series; where ``label`` is given, over those with one of ``values``.

    As in Prometheus, a label that is not there is an empty one: ``("",)`` takes the series without it.
    """

    name: str
    label: str | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way an engine counts: counters that cover every token once.

    It holds where all of ``counters`` are on the page and all of ``marks`` too. With ``sparse``, an engine that shows a series only from
    its first value on: then one of ``marks`` is enough, and what is not there yet is 0. ``needs`` must be there in any case.
    """

    counters: tuple[TokenCounter, ...]
    cached: Cached
    """Whether cached prompt tokens are told apart by a counter that moves together with the prompt counter.

    Where it is ``sparse`` and that counter has a name of its own, it is known only from its first value on: before, it may not exist.
    """
    update: Update
    """When the generation counter moves (the prompt counter, where there is no other)."""
    running: tuple[Gauge, ...] = ()
    """Requests that run now: the sum of these. Empty: not told."""
    waiting: tuple[Gauge, ...] = ()
    latency: str | None = None
    """A histogram, in seconds, of the time that whole requests took. Wanted where the counter moves at completion: a window is longer."""
    marks: tuple[str, ...] = ()
    """Other metrics of the page that tell this engine from another with the same counters, or that are there before the counters are."""
    sparse: bool = False
    needs: tuple[str, ...] = ()
    """Metrics of a server that passes on what another engine counts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A field of a JSON answer: ``path`` of the server, keys from the outside in."""

    path: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InFlight:
    """Tokens of running requests, which the counter has only at their end: a JSON list, asked for only while requests run.

    Of each entry whose field ``busy`` is true, the number in ``tokens`` (keys from the outside in; a list is looked into, its first entry).
    """

    path: str
    busy: str
    tokens: tuple[tuple[str, ...], ...]
    """Where the number is, in the order of trying: versions differ."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine."""

    name: str
    """As the contract has it."""
    schemes: tuple[Scheme, ...]
    """In the order of trying. The one that a start of the server was first read by holds for that start."""
    metrics_paths: tuple[str, ...] = ("/metrics",)
    """Where its page is, in the order of trying."""
    filters: bool = False
    """Whether the path with a slash may answer to ``name[]``. Tried, checked, and left where it does not."""
    same_work: tuple[str, ...] = ()
    """Labels of ranks that count the same tokens again (tensor, pipeline, expert): the largest is taken. Over all other labels it sums."""
    model_labels: tuple[str, ...] = MODEL_LABELS
    owned_by: tuple[str, ...] = ()
    """What ``owned_by`` says of its models, in ``GET /v1/models``."""
    identity: tuple[Answer, ...] = ()
    """Fields that only this engine has, below paths that wake, load and drain nothing."""
    version: tuple[Answer, ...] = ()
    """Where its version is, in the order of trying."""
    model: tuple[Answer, ...] = ()
    """Where the model's name is, where no label and no ``/v1/models`` has it."""
    asleep: tuple[Answer, ...] = ()
    """A field that is true while the server sleeps: then ``metrics_paths`` are not asked, and nothing is counted, for nothing moves."""
    asleep_gauge: Gauge | None = None
    """A gauge above 0 while it sleeps, on the page itself."""
    in_flight: InFlight | None = None
    private_labels: tuple[str, ...] = ()
    """Labels that tell people apart. Their series stay apart, by a digest of the value: the value itself is nobody's business."""
    never: tuple[tuple[str, str], ...] = ()
    """Paths that are never asked, each with the reason. With a query, only where the parameters are so: ``?model=`` is given,
    ``?model=&autoload!=false`` is given without autoload=false."""
    no_counters: str = ""
    """What to do where the page has none of its counters, as a sentence's end: ``start it with --enable-metrics``."""
    source: str = ""
    """Releases and files that this was read in."""

    def counters(self) -> dict[str, TokenCounter]:
        """All its token counters by name, in the order of the schemes."""
        return {c.name: c for s in reversed(self.schemes) for c in reversed(s.counters)}


@dataclass(frozen=True, slots=True)
class NotMetered:
    """A server that has no token counters: how it is recognised, and what to do about it."""

    name: str
    because: str
    """Ends the sentence "cannot be metered, because ...", and says what would help."""
    owned_by: tuple[str, ...] = ()
    identity: tuple[Answer, ...] = ()
    page: tuple[str, ...] = ()
    """Names at the beginning of lines of its page, where it has one that we cannot read."""
