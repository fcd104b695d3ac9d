"""Which metrics to take from a page, and the one pattern that finds their lines.

Names are compared with ``:`` taken for ``_``: an OpenMetrics page of client_python 0.23 and later, and SGLang's router, spell the samples
of ``vllm:x_total`` as ``vllm_x_total`` (prometheus/client_python#1177).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

MetricType = Literal["counter", "gauge", "histogram", "mark"]
"""What a wanted name must be. ``histogram``: a ``_sum``, ``_count`` or ``_bucket``. ``mark``: anything; it is there, or it is not."""

_PARTS: Final = re.compile(rb"_(?:sum|count|bucket)$")


class _Meaning(NamedTuple):
    """What a name found on a page stands for: a metric whose samples are wanted, a mark ("" is none), and metrics it is the family of."""

    name: str
    mark: str
    members: tuple[str, ...]


class Wanted:
    """The metrics to take from a page, and what each must be: a counter that the page calls a gauge is another metric.

    Raises:
        ValueError: a name cannot be what is wanted of it.
    """

    def __init__(self, types: Mapping[str, MetricType]) -> None:
        self.types = dict(types)
        self._names: dict[bytes, str] = {}
        self._families: dict[bytes, tuple[str, ...]] = {}
        self._meanings: dict[bytes, _Meaning] = {}
        for name, wanted in types.items():
            if (other := self._names.setdefault(canonical(name.encode()), name)) != name:
                raise ValueError(f"{name} and {other} are two spellings of one metric")
            if (family := _family(name, wanted)) is not None:
                self._families[family] = (*self._families.get(family, ()), name)
        names = b"|".join(re.escape(n).replace(b"_", b"[:_]") for n in sorted(self._names.keys() | self._families.keys()))
        # It begins with a literal line feed: that search is three times as fast as one for (?m:^).
        self.lines = re.compile(rb"\n[ \t]*+(?:(#)[ \t]++TYPE[ \t]++)?(" + names + rb")(?![a-zA-Z0-9_:])([^\n]*+)")

    def meaning(self, spelling: bytes) -> _Meaning:
        """What a name found on a page stands for. There are no more spellings than ``:`` and ``_`` allow."""
        found = self._meanings.get(spelling)
        if found is None:
            plain = canonical(spelling)
            name = self._names.get(plain, "")
            sampled = name if name and self.types[name] != "mark" else ""
            found = self._meanings[spelling] = _Meaning(sampled, "" if sampled else name, self._families.get(plain, ()))
        return found


def _family(name: str, wanted: MetricType) -> bytes | None:
    """The canonical name that declares this one, where that is another. OpenMetrics declares counters without ``_total``."""
    if name.endswith("_created"):
        raise ValueError(f"{name} is a time, no count")
    plain = canonical(name.encode())
    if wanted == "histogram":
        if not _PARTS.search(plain):
            raise ValueError(f"{name} is no part of a histogram: it ends with none of _sum, _count, _bucket")
        return _PARTS.sub(b"", plain)
    return plain.removesuffix(b"_total") if wanted == "counter" and plain.endswith(b"_total") else None


def canonical(name: bytes) -> bytes:
    """The name as names are compared."""
    return name.replace(b":", b"_")
