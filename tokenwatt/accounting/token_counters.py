"""One server's tokens from its readings: deltas per series, restarts told from other workers, ranks and cached tokens folded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from tokenwatt.accounting.folding import Folding, Page, Tokens
from tokenwatt.accounting.in_flight import InFlight
from tokenwatt.accounting.sawtooth import UNRELIABLE, Sawtooth
from tokenwatt.types import Kind, Listener, SeriesKey, ServerReading

REJECTIONS_TO_RESTART = 3

START_ERROR_NS: Final = 2_000_000_000
"""A process start is known from the boot time in whole seconds, and from a clock that is corrected now and then."""

STARTS_MAX: Final = 64
"""Process starts remembered. A port with more workers than that is found out by the falls of its counters."""

Process = Literal["same", "new", "other", "returned"]
"""Who answers, against who answered last: the same; one that started since; another that was there before; one that answered before."""


@dataclass(frozen=True, slots=True)
class TokenDeltas:
    """What one reading brought since the last, by (model, kind).

    ``reset``: counters began anew, so tokens made before were lost with them. ``rejected``: why the reading is not believed; it
    moved nothing. ``unreliable``: nothing that these counters say can be counted. ``in_doubt``: tokens were made that may count later.
    """

    tokens: Mapping[tuple[str, Kind], int] = field(default_factory=dict)
    reset: bool = False
    rejected: str | None = None
    unreliable: bool = False
    in_doubt: bool = False


class TokenCounters:
    """The counters of one server over its lives."""

    def __init__(self) -> None:
        self.resets = 0
        self.rejected = 0
        self._last: dict[SeriesKey, int] = {}
        self._last_t_ns: int | None = None
        self._begun_ns = 0
        """Since when we watch: what a process held that was there before is not ours."""
        self._process_start: float | None = None
        self._starts: dict[float, None] = {}
        """Those seen, in order."""
        self._listener: Listener | None = None
        self._engine: str | None = None
        self._slept = False
        self._rejected_in_a_row = 0
        self._sawtooth = Sawtooth()
        self._folding = Folding()
        self._in_flight = InFlight()

    @property
    def unreliable(self) -> str | None:
        """Why the counters cannot be believed, in words; None while they are."""
        return UNRELIABLE if self._sawtooth.unreliable else None

    def refuse(self) -> None:
        """Count a page whose values no server can mean."""
        self.rejected += 1

    def apply(self, reading: ServerReading, *, started_since_ns: int | None = None) -> TokenDeltas:
        """Take one reading.

        ``started_since_ns``: the server was seen away at that instant and is back, or is seen for the first time and is known to have
        started after it. Its counters then began at zero while we watched. Else the first reading is only a baseline.
        """
        if reading.asleep and not reading.counters:
            # Not asked for its counters. What they hold is not known, so this is no baseline either.
            self._slept = True
            return TokenDeltas()
        known = self._last_t_ns is not None
        process = self._process(reading, started_since_ns)
        page = reading.counters
        anew = process in ("new", "other")
        last = {} if anew else self._last
        deltas, fell = {}, process == "other"
        for key, value in page.items():
            before = last.get(key, 0)
            if value >= before:
                deltas[key] = value - before
            else:
                deltas[key], fell = value, True
        if process == "other" and (reading.process_start_ns or 0) < self._begun_ns - START_ERROR_NS:
            deltas = dict.fromkeys(page, 0)
        if self._sawtooth.unreliable:
            return self._wait_for_calm(reading, fell=fell or process != "same", ends=started_since_ns is not None or self._moved(reading))
        if not known and started_since_ns is None:
            self._begin(reading)
            return TokenDeltas()
        if self._replaced(reading, process):
            return self._replace(reading)
        if not known:
            self._begun_ns = started_since_ns or 0
        if process == "returned":
            self._sawtooth.give_up(reading.t_ns)
            self._keep(reading, anew=False)
            return TokenDeltas(unreliable=True)
        since_ns = self._last_t_ns if self._last_t_ns is not None else started_since_ns
        if since_ns is not None and (why := _impossible(deltas, reading.t_ns - since_ns)) is not None:
            return self._reject(reading, why)
        reset = known and (anew or fell)
        self.resets += reset
        if reset:
            self._folding.level()
            self._in_flight.lost()
        seen = process == "new" or started_since_ns is not None or self._slept or self._moved(reading)
        tokens = self._count(reading, deltas, fell=fell, seen=seen and process != "other", anew=anew)
        self._keep(reading, anew=anew)
        if self._sawtooth.unreliable:
            return TokenDeltas(unreliable=True)
        return TokenDeltas(self._in_flight.refine(tokens, reading.in_flight), reset, in_doubt=self._sawtooth.in_doubt)

    def _process(self, reading: ServerReading, started_since_ns: int | None) -> Process:
        start, moved = reading.process_start, started_since_ns is not None or self._moved(reading)
        if start is None or self._process_start is None:
            # Without a start time, only one that was seen away is another process, unless the same process still listens.
            same_listener = reading.listener is not None and reading.listener == self._listener
            return "new" if started_since_ns is not None and not same_listener else "same"
        if start == self._process_start:
            return "same"
        if start in self._starts:
            return "returned"
        start_ns, last_ns = reading.process_start_ns, self._last_t_ns
        earlier = start_ns is not None and last_ns is not None and start_ns < last_ns - START_ERROR_NS
        return "other" if earlier and not moved else "new"

    def _replaced(self, reading: ServerReading, process: Process) -> bool:
        """Whether other software answers, which may have been there for long: behind a forwarded port, say."""
        if self._engine is None or reading.engine == self._engine:
            return False
        if process != "new" or reading.process_start_ns is None or self._last_t_ns is None:
            return process != "new"
        return reading.process_start_ns < self._last_t_ns - START_ERROR_NS

    def _replace(self, reading: ServerReading) -> TokenDeltas:
        """What the other one counted before is not ours."""
        self.resets += 1
        tokens = self._folding.fold(self._last, self._sawtooth.release())
        self._in_flight.lost()
        self._begin(reading)
        return TokenDeltas(tokens, reset=True)

    def _moved(self, reading: ServerReading) -> bool:
        return reading.listener is not None and self._listener is not None and reading.listener != self._listener

    def _count(self, reading: ServerReading, deltas: Page, *, fell: bool, seen: bool, anew: bool) -> Tokens:
        page, sawtooth = reading.counters, self._sawtooth
        if not (seen and (fell or anew)):
            # Without a restart that was seen, a fall may be the way to another worker.
            return self._folding.fold(page, sawtooth.settle(reading.t_ns, page, self._last, deltas, fell=fell))
        tokens = self._folding.fold(self._last, sawtooth.release())
        if anew:
            self._folding.anew()
        for of, count in self._folding.fold(page, deltas).items():
            tokens[of] = tokens.get(of, 0) + count
        return tokens

    def _reject(self, reading: ServerReading, why: str) -> TokenDeltas:
        self.rejected += 1
        self._rejected_in_a_row += 1
        if self._rejected_in_a_row < REJECTIONS_TO_RESTART:
            return TokenDeltas(rejected=why)
        self.resets += 1
        self._begin(reading)
        return TokenDeltas(reset=True)

    def _wait_for_calm(self, reading: ServerReading, *, fell: bool, ends: bool) -> TokenDeltas:
        if self._sawtooth.calm(reading.t_ns, fell=fell) or ends:
            self._begin(reading)
        else:
            self._keep(reading, anew=False)
        return TokenDeltas(unreliable=True)

    def _begin(self, reading: ServerReading) -> None:
        """A new baseline."""
        self._begun_ns = reading.t_ns
        self._starts.clear()
        self._process_start = None
        self._keep(reading, anew=True)
        self._folding.begin(reading.counters)
        self._in_flight.begin(reading.in_flight)
        self._sawtooth.begin(one_process=reading.process_start is not None)

    def _keep(self, reading: ServerReading, *, anew: bool) -> None:
        self._rejected_in_a_row = 0
        self._slept = bool(reading.asleep)
        if anew:
            self._last.clear()
        # A series that is missing on this page keeps its value: it may come back.
        self._last.update(reading.counters)
        self._last_t_ns = reading.t_ns
        if reading.process_start is not None:
            self._process_start = reading.process_start
            self._starts[reading.process_start] = None
            if len(self._starts) > STARTS_MAX:
                del self._starts[next(iter(self._starts))]
        self._listener = reading.listener
        self._engine = reading.engine


def _impossible(deltas: Mapping[SeriesKey, int], dt_ns: int) -> str | None:
    highest = max(dt_ns, 1)  # 10^9 tokens a second is one a nanosecond
    for key, delta in deltas.items():
        if delta > highest:
            return f"{key.kind} tokens of model {key.model!r} rose by {delta} in {dt_ns / 1e9:.3f} s: more than 10^9 a second"
    return None
