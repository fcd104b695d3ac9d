"""One start of a server: when its process was started, and what holds until the next."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tokenwatt import procfs
from tokenwatt.servers.sleep import Rest
from tokenwatt.types import Listener, SeriesKey, ServerReading

_SAME_START_NS: Final = 2 * 10**9
"""A server works its own start out in whole seconds."""

_BETWEEN: Final = re.compile(r"proxy|router|gateway|forward|tunnel|nginx|envoy|caddy|traefik|socat|kubectl|\bsshd?\b", re.IGNORECASE)
"""Who listens for another. It may start long after the counters that it hands through."""


def started_ns(listener: Listener) -> int:
    """When a process started, on the monotonic clock, to 10 ms.

    Ticks are counted on a clock that goes on while the machine is suspended; the monotonic one stands still then. Of a process older than
    the last suspension it says too early an instant: that only makes it look as old as it is.
    """
    suspended_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    return listener.start_ticks * 10**9 // os.sysconf("SC_CLK_TCK") - suspended_ns


def is_start_of(listener: Listener, start_ns: int) -> bool:
    """Whether a start that a server tells of itself is that of this process: then it is the server, and nobody in between."""
    return abs(started_ns(listener) - start_ns) <= _SAME_START_NS


def counts_itself(listener: Listener) -> bool:
    """Whether a process looks like the server itself, so that its counters are no older than it is. In doubt it does not."""
    process = procfs.process(listener.pid)
    if process is None:
        return False
    # TGI's own server is called so.
    line = " ".join((process.command, *process.words)).replace("text-generation-router", "").replace("text-generation", "")
    return bool(process.words) and _BETWEEN.search(line) is None


@dataclass(slots=True)
class Start:
    """What holds for one start of a server, and is found out anew when it was started again."""

    version: str | None = None
    model: str | None = None
    process_start: float | None = None
    process_start_ns: int | None = None
    listener: Listener | None = None
    counts_itself: bool = False
    """Whether the listener looks like the server itself."""
    vouched: int | None = None
    """The connection (the how manieth) whose listener is known to be the server itself: over it, its start cannot change."""
    asleep: bool | None = None
    asleep_asked_ns: int = 0
    turn: int = 0
    """Of the filtered pages, which take turns in what they leave out."""
    rest: Rest | None = None
    rest_known: bool = False
    refines: bool | None = None
    """Whether tokens in flight are told. None: nothing ran yet."""
    last: ServerReading | None = None
    tokens: Mapping[SeriesKey, int] | None = None
    """What its counters were, where they are kept out of the reading."""

    def is_another(self, process_start: float | None, listener: Listener | None) -> bool:
        """Whether a page was of another start. ``process_start`` None: it has none, and had none before."""
        if self.process_start is not None and process_start != self.process_start:
            return True
        return None not in (listener, self.listener) and listener != self.listener

    def note(self, process_start: float | None, listener: Listener | None, *, t_ns: int, opened: int) -> None:
        """Take down who answered a page at ``t_ns``, over which connection. Once a start: it does not move with the wall clock."""
        if listener is not None and listener != self.listener:
            self.listener, self.counts_itself = listener, counts_itself(listener)
        if process_start is not None and self.process_start is None:
            self.process_start = process_start
            self.process_start_ns = t_ns - (time.time_ns() - round(process_start * 1e9))
        elif self.process_start_ns is None and listener is not None and self.counts_itself:
            self.process_start_ns = started_ns(listener)
        if self.vouched != opened and process_start is not None and self.process_start_ns is not None and listener is not None:
            self.vouched = opened if is_start_of(listener, self.process_start_ns) else None

    def sleeps(self, told: bool | None, running: int | None, t_ns: int) -> bool | None:
        """Whether it sleeps: ``told`` by its page at ``t_ns``, else (it was not asked, or has no such gauge) as it told before."""
        if told is not None:
            self.asleep, self.asleep_asked_ns = told, t_ns
        elif self.asleep and running:
            self.asleep = False
        return self.asleep

    def without_tokens(self, reading: ServerReading) -> ServerReading:
        """The reading of a member whose tokens are counted elsewhere: that its own move says that it works."""
        moved = self.tokens is not None and reading.counters != self.tokens
        self.tokens = reading.counters
        running = max(reading.running or 0, 1) if moved else reading.running
        return replace(reading, counters={}, running=running, in_flight=None)
