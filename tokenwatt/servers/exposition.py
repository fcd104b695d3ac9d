"""A strict reader of Prometheus text pages that parses only the lines it was asked for.

A server's page is 50 to 80 kB, of which a meter needs ten lines. Lines are chosen as bytes, by their name, and only those are decoded. It
reads the text format 0.0.4 and 1.0.0, and of OpenMetrics 1.0 what counters and gauges need; timestamps and exemplars are skipped.

Names are compared with ``:`` taken for ``_``: an OpenMetrics page of client_python 0.23 and later, and SGLang's router, spell the samples
of ``vllm:x_total`` as ``vllm_x_total`` (prometheus/client_python#1177).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from tokenwatt.servers.errors import Unusable

MetricType = Literal["counter", "gauge"]

Labels = tuple[tuple[str, str], ...]
"""Sorted by name: the same series is the same key, whatever order a server writes it in."""

# Possessive, so that a hostile line is refused in linear time; but for groups, which Python 3.11.2 (Debian 12) then matches wrongly
# (python/cpython#101955). What each of them can begin with leaves no choice.
_REST: Final = (
    rb"(?:[ \t]*+\{([^\"}]*+(?:"  # labels, whose values may hold braces
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
    rb"[^\"}]*+)*)\}[ \t]*+|[ \t]++)"
    # float() alone takes "1_000" and digits of other scripts.
    rb"([-+]?(?:(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?|(?i:inf(?:inity)?|nan)))"
    rb"(?:[ \t]++[-+]?[0-9][0-9.eE+-]*+)?(?:[ \t]++#.*+)?[ \t\r]*+"  # a timestamp, an exemplar
)
_SAMPLE_REST: Final = re.compile(_REST)
_SAMPLE: Final = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*+" + _REST)
_TYPE_REST: Final = re.compile(rb"[ \t]++([a-z]++)[ \t\r]*+")
_LABEL: Final = re.compile(r'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"([^"\\]*+(?:\\.[^"\\]*+)*)"[ \t]*+(?:,|$)')
_ESCAPE: Final = re.compile(r'\\([\\n"])')
_TAKEN_FOR: Final[Mapping[MetricType, frozenset[str]]] = {
    "counter": frozenset({"counter", "untyped", "unknown"}),
    "gauge": frozenset({"gauge", "untyped", "unknown"}),
}


class Sample(NamedTuple):
    """One series of a metric."""

    labels: Labels
    value: float


class Page(NamedTuple):
    """What was wanted and is there, by name as it was asked for: samples, and types (a family may be declared and have no samples yet)."""

    samples: Mapping[str, Sequence[Sample]]
    types: Mapping[str, str]

    def has(self, name: str) -> bool:
        """Whether the page knows this metric, with samples or without yet."""
        return name in self.samples or name in self.types


class Wanted:
    """The metrics to take from a page, and what each must be: a counter that the page calls a gauge is another metric."""

    def __init__(self, types: Mapping[str, MetricType]) -> None:
        if created := [n for n in types if n.endswith("_created")]:
            raise ValueError(f"{created[0]} is a time, no count")
        self.types = dict(types)
        self._names = {canonical(n.encode()): n for n in types}
        # OpenMetrics declares a counter's family without the suffix of its samples.
        self._families = {n.removesuffix(b"_total"): spelled for n, spelled in self._names.items() if n.endswith(b"_total")}
        self._meanings: dict[bytes, tuple[str, str]] = {}
        names = b"|".join(n.replace(b"_", b"[:_]") for n in sorted(self._names.keys() | self._families.keys()))
        # It begins with a literal line feed: that search is three times as fast as one for (?m:^).
        self.lines = re.compile(rb"\n[ \t]*+(?:(#)[ \t]++TYPE[ \t]++)?(" + names + rb")(?![a-zA-Z0-9_:])([^\n]*+)")

    def meaning(self, spelling: bytes) -> tuple[str, str]:
        """The metric and the family that a name found on a page stands for; "" where it is none."""
        found = self._meanings.get(spelling)
        if found is None:
            name = canonical(spelling)
            found = self._meanings[spelling] = self._names.get(name, ""), self._families.get(name, "")
        return found


def read(body: bytes, wanted: Wanted, content_type: str = "") -> Page:
    """The wanted part of a page.

    Raises:
        Unusable: it is not a page of metrics, it is cut off, or a wanted metric is not what it should be.
    """
    _refuse_other_formats(body, content_type)
    samples: dict[str, list[Sample]] = {}
    types: dict[str, str] = {}
    family_types: dict[str, str] = {}
    for declares, spelling, rest in wanted.lines.findall(b"\n" + body):
        name, family = wanted.meaning(spelling)
        if not declares:
            if name:
                samples.setdefault(name, []).append(_sample(name, rest))
        elif name:
            types[name] = _type(rest)
        else:
            family_types[family] = _type(rest)
    if not samples:
        _refuse_nothing(body)
    # A name's own TYPE goes before that of the name without _total, which may be another family: some servers have both.
    types = family_types | types
    for name, type_ in types.items():
        if type_ not in _TAKEN_FOR[wanted.types[name]]:
            raise Unusable(f"{name} is a {type_} on this page, not a {wanted.types[name]}")
    for name, series in samples.items():
        if len(series) > 1 and len({s.labels for s in series}) < len(series):
            raise Unusable(f"{name} is on the page twice with the same labels")
    return Page(samples, types)


def canonical(name: bytes) -> bytes:
    """The name as names are compared."""
    return name.replace(b":", b"_")


def _refuse_other_formats(body: bytes, content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    start = body[:64].lstrip()[:1]
    if kind in ("text/html", "application/xhtml+xml") or start == b"<":
        raise Unusable("the answer is a web page (HTML), not metrics")
    if kind == "application/json" or start in (b"{", b"[", b'"'):
        raise Unusable("the answer is JSON, not metrics")
    # The last line of both formats ends with a line feed. Without it the last number may be a part of one.
    if body and not body.endswith(b"\n"):
        raise Unusable("the page is cut off: its last line has no end")
    if kind == "application/openmetrics-text" and not body.endswith(b"# EOF\n"):
        raise Unusable("the page is cut off: OpenMetrics without # EOF")


@lru_cache(maxsize=64)
def _type(rest: bytes) -> str:
    """What follows the name on a TYPE line. A type that cannot be read is none that is wanted."""
    match = _TYPE_REST.fullmatch(rest)
    return match[1].decode() if match else "metric without a type"


def _sample(name: str, rest: bytes) -> Sample:
    match = _SAMPLE_REST.fullmatch(rest)
    if match is None:
        raise Unusable(f"a line of {name} is not in the Prometheus text format")
    block, value = match.groups()
    return Sample(_labels(block) if block else (), float(value))


@lru_cache(maxsize=1024)
def _labels(block: bytes) -> Labels:
    """What is between the braces. The same bytes come every second: they are read once."""
    try:
        text = block.decode()
    except UnicodeDecodeError:
        raise Unusable("a label is not UTF-8") from None
    labels: dict[str, str] = {}
    at = 0
    while at < len(text.rstrip(" \t")):
        match = _LABEL.match(text, at)
        if match is None or match[1] in labels:
            raise Unusable("labels are not in the Prometheus text format")
        labels[match[1]] = _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], match[2])
        at = match.end()
    return tuple(sorted(labels.items()))


def _refuse_nothing(body: bytes) -> None:
    """Say why a page without a wanted sample is no page of metrics, if it is none."""
    lines = [line.strip() for line in body.split(b"\n", 1000)[:1000]]
    if not any(lines):
        raise Unusable("the page is empty")
    first = next((line for line in lines if line and not line.startswith(b"#")), None)
    if first is not None and not _SAMPLE.fullmatch(first):
        raise Unusable("the answer is not a page of metrics")
