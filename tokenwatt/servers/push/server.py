"""One server that is reported for: what it was told to have made, as the counters that it does not have itself."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from math import inf
from types import MappingProxyType
from typing import Final

from tokenwatt.servers.push.presence import Lookouts, Presence, Seen
from tokenwatt.types import Listener, SeriesKey, ServerFailure, ServerReading, TokenReport

RUNNING_KEPT_NS: Final = 60 * 10**9
"""A report says how many requests run; who ends without a word must not leave them running for ever."""
UNSEEN_KEPT_NS: Final = 24 * 3600 * 10**9
"""A server that nobody can see is there for so long after a report."""
LATE_KEPT_NS: Final = 60 * 10**9
"""One that was seen, and seen away, is there for so long: the last report comes after the end, and its GPUs must not wait for another."""

LATENCY_BOUNDS_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, inf)

NOTHING: Final[Mapping[SeriesKey, int]] = MappingProxyType({})

_UNSEEN: Final = Seen("elsewhere")


class PushedServer:
    """The counters of one server, in lives: one begins with a report or a listener, and ends when the listener is gone.

    Each life counts from zero and has a start of its own, after the meter's: all of its tokens are then counted, those of the first report
    too, which came before the first reading. They enter the totals, but no window: the joules they took were spent before we knew of it.
    """

    def __init__(self, name: str, url: str, lookouts: Lookouts, *, configured: bool, started_ns: int) -> None:
        """``started_ns``: since when the meter could have seen it."""
        self.name = name
        self.url = ""
        self.configured = configured
        self.models: set[str] = set()
        self.began_ns: int | None = None
        """When this life began. None: it is not there."""
        self._lookouts = lookouts
        self._presence: Presence | None = None
        self._was_seen = self._said_away = False
        self._away_ns: int | None = None
        self._told: dict[SeriesKey, int] = {}
        self._shown: Mapping[SeriesKey, int] = NOTHING
        self._shown_ns = started_ns
        self._cached_known = False
        self._running: tuple[int, int] | None = None
        self._last_report_ns: int | None = None
        self._latencies = [0] * len(LATENCY_BOUNDS_S)
        self._latency: tuple[tuple[float, int], ...] | None = None
        self.listens_at(url)

    def listens_at(self, url: str) -> None:
        """Look at this url from now on. Empty: it is not known where it listens."""
        if url != self.url:
            self.url = url
            self._presence = Presence(url, self._lookouts) if url else None
            self._was_seen = self._said_away = False
            self._away_ns = None

    def take(self, report: TokenReport, now_ns: int) -> None:
        """Add what was reported."""
        key = SeriesKey(report.model, report.kind, "")
        self.models.add(report.model)
        self._told[key] = self._told.get(key, 0) + report.count
        self._cached_known |= report.kind == "prompt_cached"
        self._last_report_ns = now_ns
        if report.running is not None:
            self._running = report.running, now_ns
        if report.span_ns is not None and report.count:
            # From the first token to this report, which is late by nothing or by much: so far back a window has to reach.
            self._latencies[bisect_left(LATENCY_BOUNDS_S, (now_ns - report.span_ns[0]) / 1e9)] += 1
            self._latency = None

    def reading(self, now_ns: int) -> ServerReading | ServerFailure | None:
        """What there is to say of it now. None: nothing new, or who listens there is being looked up."""
        seen = self._presence.seen(now_ns) if self._presence is not None else _UNSEEN
        self._follow(seen, now_ns)
        expected = self._is_expected(now_ns)
        if seen.state == "unknown" and (self._was_seen or not expected):
            return None
        # Gone is who has told everything: what is left goes first, into the life it belongs to.
        if seen.state == "here" or expected or self._shown != self._told:
            return self._read(now_ns, seen.holder.listener if seen.holder is not None else None)
        return self._leave(now_ns, seen)

    def _follow(self, seen: Seen, now_ns: int) -> None:
        if seen.state == "here":
            self._was_seen, self._away_ns = True, None
        elif seen.state == "away" and self._was_seen and self._away_ns is None:
            self._away_ns = now_ns
        elif seen.state == "elsewhere" and self._last_report_ns is None:
            self._last_report_ns = now_ns  # the settings say that it is there, and nothing here can say otherwise

    def _is_expected(self, now_ns: int) -> bool:
        """Whether it is there by its reports alone."""
        if self._last_report_ns is None:
            return False
        if self._away_ns is not None:
            return self._last_report_ns > self._away_ns and now_ns - self._last_report_ns < LATE_KEPT_NS
        return now_ns - self._last_report_ns < UNSEEN_KEPT_NS

    def _read(self, now_ns: int, listener: Listener | None) -> ServerReading:
        if self.began_ns is None:
            self.began_ns = now_ns
        self._said_away = False
        self._show(now_ns)
        return ServerReading(
            self.name,
            now_ns,
            "generic",
            self._shown,
            running=self._running_now(now_ns),
            process_start=self.began_ns / 1e9,
            process_start_ns=self.began_ns,
            update="completion",
            cached="known" if self._cached_known else "unknown",
            listener=listener,
            latency=self._buckets(),
        )

    def _show(self, now_ns: int) -> None:
        """Let counters follow what was told, by at most one token a nanosecond: a faster one is taken for broken, and its tokens are lost.

        Reports of hours may come at once, when a reporter was cut off.
        """
        if self._shown != self._told:
            most = max(now_ns - self._shown_ns, 0)
            self._shown = {key: min(count, self._shown.get(key, 0) + most) for key, count in self._told.items()}
        self._shown_ns = max(now_ns, self._shown_ns)

    def _buckets(self) -> tuple[tuple[float, int], ...] | None:
        if self._latency is None and any(self._latencies):
            self._latency = tuple(zip(LATENCY_BOUNDS_S, accumulate(self._latencies), strict=True))
        return self._latency

    def _running_now(self, now_ns: int) -> int | None:
        if self._running is None:
            return None
        count, told_ns = self._running
        return count if now_ns - told_ns < RUNNING_KEPT_NS else None

    def _leave(self, now_ns: int, seen: Seen) -> ServerFailure | None:
        if self._said_away:
            return None
        self._said_away, self.began_ns, self._shown_ns = True, None, now_ns
        self._told, self._shown, self._running = {}, NOTHING, None
        self.models.clear()
        reason = f"nobody listens at {self.url}" if seen.state == "away" else "nothing was pushed for it for 24 h"
        return ServerFailure(self.name, now_ns, reason, gone=True)
