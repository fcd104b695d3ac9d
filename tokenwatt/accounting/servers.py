"""The books of one server: intervals closed, by model; and the rings that windows are read from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from tokenwatt.accounting.divide import divide
from tokenwatt.accounting.resolution import Resolution
from tokenwatt.accounting.rings import series_ring
from tokenwatt.accounting.token_counters import TokenCounters
from tokenwatt.ring import Ring
from tokenwatt.types import STATES, Interval, Kind, SeriesKey, ServerFailure, ServerReading, State

WAITING_MAX = 120
"""Readings that wait for energy are dropped beyond this, oldest first: the next one has their tokens."""

WORK: tuple[Kind, ...] = ("prompt_computed", "generation", "unsplit")
"""The kinds that GPUs of this node worked for: what models and servers share energy by."""


class ModelBook:
    """One model's totals, and a ring for each of its figures."""

    def __init__(self, since_ns: int) -> None:
        self.energy_uj: dict[State, int] = dict.fromkeys(STATES, 0)
        self.tokens: dict[Kind, int] = {}
        self.rings: dict[State | Kind, Ring] = {}
        self._since_ns: dict[State | Kind, int] = dict.fromkeys(STATES, since_ns)

    def know(self, kind: Kind, since_ns: int) -> None:
        """The server tells this kind: from now on it is a number, at first 0."""
        if kind not in self.tokens:
            self.tokens[kind] = 0
            self._since_ns[kind] = since_ns

    def mark(self, t_ns: int) -> None:
        """Write the totals into the rings, at the end of an interval."""
        for state, total_uj in self.energy_uj.items():
            self._mark(state, t_ns, total_uj)
        for kind, total in self.tokens.items():
            self._mark(kind, t_ns, total)

    def _mark(self, figure: State | Kind, t_ns: int, total: int) -> None:
        ring = self.rings.get(figure)
        if ring is None:
            ring = self.rings[figure] = series_ring()
            # A figure that begins within an interval rises from 0 over it. One that is there when a server opens has no such interval.
            if self._since_ns[figure] < t_ns:
                ring.append(self._since_ns[figure], 0)
        append_later(ring, t_ns, total)


class ServerBook:
    """One server: what it said last, and all its closed intervals."""

    def __init__(self, name: str, *, tokens: bool = True, partial: bool = False) -> None:
        """``partial``: it is a member of a server that spans nodes. ``tokens`` False: another member counts those that its readings bring;
        here they only tell when it works, and on what."""
        self.name = name
        self.partial = partial
        self.counters = TokenCounters()
        self.resolution = Resolution()
        self.models: dict[str, ModelBook] = {}
        self.present = False
        """It was read, and nobody saw it go: it holds its GPUs."""
        self.asked = False
        self.gone_ns: int | None = None
        """When it was seen away, and is not back yet."""
        self.closed_ns: int | None = None
        """The end of the last closed interval."""
        self.reading: ServerReading | None = None
        """The last one booked."""
        self.failure: ServerFailure | None = None
        """Why it is not up; None while it is."""
        self.waiting: deque[ServerReading] = deque(maxlen=WAITING_MAX)
        """Readings whose instant the boards' energy has not reached yet."""
        self.gap_ns: int | None = None
        """The end of the last interval in which a board of it could not be seen."""
        self.work_tokens = 0
        """The processed tokens of the last closed interval."""
        self._tells_tokens = tokens
        self._tells_generation = False
        self._serving: tuple[str, ...] = ()
        self._known_keys: frozenset[SeriesKey] = frozenset()
        self.held = False
        """It held a board at some time: its energy is a number, and 0 is one."""
        self.unheld_ns: int | None = None
        """The end of the last interval in which it held no board: its tokens are known, the joules they took are not."""
        self.observed_ns = 0
        self.observed_ring = series_ring()

    @property
    def trouble(self) -> str | None:
        """Why it is not up, in words; None while it is."""
        return self.failure.reason if self.failure is not None else self.counters.unreliable

    def resolve(self, reading: ServerReading, tokens: Mapping[tuple[str, Kind], int]) -> None:
        """Note whether its counter moved with a reading."""
        kinds = {kind for (_, kind), count in tokens.items() if count}
        self.resolution.read(reading, moved="generation" in kinds if self._tells_generation else bool(kinds))

    def open(self, t_ns: int, tokens: Mapping[tuple[str, Kind], int]) -> Interval | None:
        """Begin: from here on its intervals join. ``tokens``: those of a start that we saw, which no interval of ours has."""
        append_later(self.observed_ring, t_ns, self.observed_ns)
        self.present, self.gone_ns, self.closed_ns = True, None, t_ns
        counted = self._count(tokens, t_ns)
        for book in self.models.values():
            book.mark(t_ns)
        return Interval(self.name, t_ns, t_ns, "active", {}, counted) if any(counted.values()) else None

    def close(self, t_ns: int, state: State, energy_uj: int, gap_uj: int, tokens: Mapping[tuple[str, Kind], int]) -> Interval:
        """Close the interval that ends at ``t_ns``. ``gap_uj`` of its energy came out of gaps and is unobserved in any case."""
        assert self.closed_ns is not None
        start_ns, self.closed_ns = self.closed_ns, max(t_ns, self.closed_ns)
        counted = self._count(tokens, start_ns)
        booked: dict[tuple[str, State], int] = {}
        by_state: tuple[tuple[State, int], ...] = ((state, energy_uj - gap_uj), ("unobserved", gap_uj))
        for of_state, amount_uj in by_state:
            for model, part_uj in self._divide(amount_uj, tokens) if amount_uj else ():
                self._model(model, start_ns, ()).energy_uj[of_state] += part_uj
                booked[model, of_state] = booked.get((model, of_state), 0) + part_uj
        if state != "unobserved":
            self.observed_ns += self.closed_ns - start_ns
        append_later(self.observed_ring, self.closed_ns, self.observed_ns)
        for book in self.models.values():
            book.mark(self.closed_ns)
        self.work_tokens = sum(count for (_, kind), count in tokens.items() if kind in WORK)
        return Interval(self.name, start_ns, self.closed_ns, state, booked, counted)

    def _count(self, tokens: Mapping[tuple[str, Kind], int], since_ns: int) -> dict[tuple[str, Kind], int]:
        if not self._tells_tokens:
            return {}
        for (model, kind), count in tokens.items():
            self._model(model, since_ns, (kind,)).tokens[kind] += count
        return dict(tokens)

    def leave(self, t_ns: int) -> None:
        """Nobody listens any more."""
        self.present, self.gone_ns = False, t_ns
        self.work_tokens = 0

    def know(self, reading: ServerReading) -> None:
        """Make the models and kinds of a reading known, at 0 where they are new."""
        if not reading.counters or self._known_keys == reading.counters.keys():
            return  # one that sleeps tells of no models, and has those it had
        self._known_keys = frozenset(reading.counters)
        self._serving = tuple(sorted({key.model for key in reading.counters}))
        self._tells_generation = any(key.kind == "generation" for key in reading.counters)
        if not self._tells_tokens:
            for model in self._serving:
                self._model(model, self.closed_ns or reading.t_ns, ())
            return
        with_cached = {key.model for key in reading.counters if key.kind == "prompt"}
        for key in reading.counters:
            if key.kind != "prompt":
                self._model(key.model, self.closed_ns or reading.t_ns, (key.kind,))
        for model in with_cached:
            self._model(model, self.closed_ns or reading.t_ns, ("prompt_computed",))

    def _model(self, model: str, since_ns: int, kinds: Iterable[Kind]) -> ModelBook:
        book = self.models.get(model)
        if book is None:
            book = self.models[model] = ModelBook(since_ns)
        for kind in kinds:
            book.know(kind, since_ns)
        return book

    def _divide(self, amount_uj: int, tokens: Mapping[tuple[str, Kind], int]) -> Iterable[tuple[str, int]]:
        """By the processed tokens of the interval, without tokens equally."""
        models = self._serving or ("",)
        work = dict.fromkeys(models, 0)
        for (model, kind), count in tokens.items():
            if kind in WORK:
                work[model] = work.get(model, 0) + count
        weights = list(work.values()) if any(work.values()) else [1] * len(work)
        return zip(work, divide(amount_uj, weights), strict=True)


def append_later(ring: Ring, t_ns: int, value: int) -> None:
    """Append, unless the ring has a point at or after that instant: two intervals may end at one, and the next point holds both."""
    last = ring.last
    if last is None or last[0] < t_ns:
        ring.append(t_ns, value)
