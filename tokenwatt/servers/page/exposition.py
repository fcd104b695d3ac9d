"""A strict reader of Prometheus text pages that parses only the lines it was asked for.

A server's page is 50 to 80 kB, of which a meter needs ten lines. Lines are chosen as bytes, by their name, and only those are decoded. It
reads the text format 0.0.4 and 1.0.0, and of OpenMetrics 1.0 what counters, gauges and histograms need; timestamps and exemplars are
skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.page.wanted import MetricType, Wanted

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
_UNTYPED: Final = frozenset({"untyped", "unknown"})
_TAKEN_FOR: Final[Mapping[MetricType, frozenset[str]]] = {
    "counter": _UNTYPED | {"counter"},
    "gauge": _UNTYPED | {"gauge"},
    "histogram": _UNTYPED | {"histogram", "summary"},
}


class Sample(NamedTuple):
    """One series of a metric."""

    labels: Labels
    value: float


class Page(NamedTuple):
    """What was wanted and is there, by name as it was asked for: samples, and types (a family may be declared and have no samples yet).

    ``wrong`` says of which metrics the page makes something else than what was wanted, in a sentence. It matters to who reads them.
    """

    samples: Mapping[str, Sequence[Sample]]
    types: Mapping[str, str]
    marks: Set[str] = frozenset()
    wrong: Mapping[str, str] = MappingProxyType({})

    def has(self, name: str) -> bool:
        """Whether the page knows this metric, with samples or without yet."""
        return name in self.samples or name in self.types or name in self.marks


def read(body: bytes, wanted: Wanted, content_type: str = "") -> Page:
    """The wanted part of a page.

    Raises:
        Unusable: it is not a page of metrics, it is cut off, or a line of a wanted metric cannot be meant so.
    """
    _refuse_other_formats(body, content_type)
    samples: dict[str, list[Sample]] = {}
    spellings: dict[str, bytes] = {}
    marks: set[str] = set()
    types: dict[str, str] = {}
    family_types: dict[str, str] = {}
    for declares, spelling, rest in wanted.lines.findall(b"\n" + body):
        name, mark, members = wanted.meaning(spelling)
        if declares:
            if name:
                _declare(spelling, rest, types, name)
            for member in members:
                _declare(spelling, rest, family_types, member)
        elif name:
            if spellings.setdefault(name, spelling) != spelling:
                raise Unusable(f"{name} is on the page in two spellings: both may count the same")
            samples.setdefault(name, []).append(_sample(name, rest))
        if mark:
            marks.add(mark)
    if not samples:
        _refuse_nothing(body)
    for name, series in samples.items():
        if len(series) > 1 and len({s.labels for s in series}) < len(series):
            raise Unusable(f"{name} is on the page twice with the same labels")
    # A name's own TYPE goes before that of its family, which may be another metric: some servers have both.
    return Page(samples, family_types | types, marks, _wrong(wanted, types, family_types))


def _declare(spelling: bytes, rest: bytes, types: dict[str, str], name: str) -> None:
    # A server that writes samples with underscores may leave the colon in their metadata: those hold.
    if name not in types or b":" in spelling:
        types[name] = _type(rest)


def _wrong(wanted: Wanted, types: dict[str, str], family_types: dict[str, str]) -> dict[str, str]:
    wrong: dict[str, str] = {}
    for name, type_ in (family_types | types).items():
        must_be = wanted.types[name]
        # With a TYPE of its own, a sum is a counter that somebody named so.
        taken = _TAKEN_FOR["counter" if must_be == "histogram" and name in types else must_be]
        if type_ not in taken:
            wrong[name] = f"{name} is a {type_} on this page, not a {must_be}"
    return wrong


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
