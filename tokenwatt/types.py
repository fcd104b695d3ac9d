"""What travels between the rooms: readings, shares, intervals.

Data flows one way: ``energy`` and ``servers`` make readings, ``attribution`` turns processes and settings into shares, ``accounting`` books
shares of readings and closes intervals, and everything published is in ``tokenwatt.snapshot``.

Instants are ``int`` nanoseconds of the monotonic clock (``time.monotonic_ns``), in the middle of the call that read the value. ``None`` is
always "not known", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Kind = Literal["prompt_computed", "prompt_cached", "generation", "unsplit"]
"""A token's kind. Kinds are disjoint, so they can be summed."""

KINDS: Final[tuple[Kind, ...]] = ("prompt_computed", "prompt_cached", "generation", "unsplit")

SeriesKind = Literal["prompt", "prompt_computed", "prompt_cached", "generation", "unsplit"]
"""What a counter of a server holds. ``prompt`` includes the cached tokens; accounting takes the ``prompt_cached`` of the same page off."""

State = Literal["active", "idle", "unobserved"]
"""Of an interval's energy: tokens moved or requests ran; the server held its GPUs and did nothing; we could not see."""

STATES: Final[tuple[State, ...]] = ("active", "idle", "unobserved")

Scope = Literal["gpu", "module"]
"""What a board's counter measures: the board, or a module that holds a CPU as well (Grace Hopper)."""

Update = Literal["step", "first_token", "completion", "arrival"]
"""When a server's generation counter moves."""

Cached = Literal["known", "unknown"]
"""Whether the server tells cached prompt tokens apart, by a counter that moves together with its prompt counter."""


# --- energy ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gpu:
    """A board: what does not change while the driver is loaded. ``uuid`` is the key; ``index`` is for people and moves when a GPU goes."""

    uuid: str
    index: int
    name: str
    driver: str
    pci_bus_id: str
    power_limit_max_mw: int | None
    """The highest limit that may be set on this board: the bound of what a reading can be."""
    scope: Scope = "gpu"


class EnergyReading(NamedTuple):  # made 80 times a second on a node of 8: a frozen dataclass takes six times as long
    """One board's energy and power at one instant. ``error`` says why nothing at all could be read: then every figure is None."""

    uuid: str
    t_ns: int
    energy_mj: int | None = None
    """The hardware counter (mJ since the driver was loaded). None: this board has none, or this one read of it failed."""
    power_mw: int | None = None
    """What is integrated: the 1 s mean where the board has one (it sees all of the time, the instant value a part), else the latter."""
    power_instant_mw: int | None = None
    sm_utilization: Mapping[int, int] | None = None
    """Per cent by pid since the reading before. None: not asked (one process or none) or not told by the driver."""
    error: str | None = None
    lost: bool = False
    """With ``error``: the board or its driver is gone, as against one read that failed."""


class GpuProcess(NamedTuple):
    """A process with a compute context on a board."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class GpuState:
    """What else a board tells, once a second. Each figure is None where the board does not tell it."""

    gpu: Gpu
    t_ns: int
    power_limit_mw: int | None = None
    utilization_percent: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: int | None = None
    sm_clock_hz: int | None = None
    clock_events: frozenset[str] | None = None
    """The clock-event (throttle) reasons that hold now, by the names in ``tokenwatt.energy.clock_events``."""
    processes: tuple[GpuProcess, ...] | None = None


@dataclass(frozen=True, slots=True)
class EnergyTick:
    """What one round over the boards brought: at most one reading a board."""

    readings: tuple[EnergyReading, ...]


@dataclass(frozen=True, slots=True)
class GpuStates:
    """The boards' other figures, once a second, and with it the list of boards that there are now."""

    states: tuple[GpuState, ...]


# --- servers -----------------------------------------------------------------------------------------------------------------------------


class SeriesKey(NamedTuple):
    """One counter series of a server. ``labels`` is what else tells series apart (engine, replica ...), in one canonical string.

    Series that differ in ``rank`` alone count the same tokens again (tensor, pipeline and expert ranks): the largest of them holds. Over
    everything else they are summed.
    """

    model: str
    kind: SeriesKind
    labels: str
    rank: str = ""


class Listener(NamedTuple):
    """The process that listens on a server's port. ``start_ticks`` (/proc/PID/stat field 22) tells a reused pid from the same process."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class ServerReading:
    """One good answer of one server."""

    server: str
    t_ns: int
    """The middle of the request."""
    engine: str
    counters: Mapping[SeriesKey, int]
    running: int | None = None
    waiting: int | None = None
    process_start: float | None = None
    """``process_start_time_seconds`` as the page tells it: only ever compared with itself."""
    process_start_ns: int | None = None
    """The same on the monotonic clock, as well as the wall clock allows."""
    version: str = ""
    update: Update = "step"
    cached: Cached = "unknown"
    listener: Listener | None = None
    duration_ns: int = 0
    size_bytes: int = 0
    in_flight: Mapping[str, int] | None = None
    """By model: generation tokens of running requests, which the counter gets only at their end. None: not known, or nothing to add."""
    latency: tuple[tuple[float, int], ...] | None = None
    """Of finished requests, how many took at most so many seconds: (upper bound, count so far), ascending, the last bound is infinite."""
    asleep: bool | None = None
    """Whether it put its model away until the next request. None: it does not tell."""


@dataclass(frozen=True, slots=True)
class TokenReport:
    """Tokens that a process reports of itself (``POST /api/v1/tokens``), for a server that has no counters.

    ``span_ns``: when they were made, first and last instant of the monotonic clock. ``running``: requests that run now. ``url``: where the
    server listens. Each is None where it is not told.
    """

    server: str
    model: str
    kind: Kind
    count: int
    span_ns: tuple[int, int] | None = None
    running: int | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class ServerFailure:
    """One answer that could not be used, and why, in words for people."""

    server: str
    t_ns: int
    reason: str
    gone: bool = False
    """Nobody listens any more (connection refused, process exited), as against a server that is slow or answers badly."""
    rejected: bool = False
    """The page was read, but holds a value that no server can mean (NaN, negative, infinite)."""
    not_metered: str | None = None
    """The name of the software, where it is a known one that has no token counters, or has them switched off."""


# --- attribution -------------------------------------------------------------------------------------------------------------------------

Method = Literal["settings", "ancestry", "only_server"]
"""How a GPU came to a server: the settings name it; a process on it is the listener or descends from it; it is the only server there is."""

Split = Literal["sole", "sm_utilization", "tokens", "equal"]
"""How a GPU's energy was divided at a tick: one holder took all; by SM utilisation; by the tokens of the last closed intervals; equally."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A server, or a foreign process (``server`` None), that has a part in one GPU. ``pids`` are its processes there, as far as known."""

    server: str | None
    method: Method | None
    pids: frozenset[int] = frozenset()


class Share(NamedTuple):
    """A part of one GPU's energy at one tick, as an integer weight. ``server`` None: unattributed."""

    server: str | None
    weight: int


# --- accounting --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """The unit of accounting: joules and tokens of one server between the same two instants. Closed once, never revised.

    ``energy_uj`` is by (model, state), ``tokens`` by (model, kind). ``start_ns == end_ns`` for tokens whose time is not known (those of a
    server that was started and read for the first time).
    """

    server: str
    start_ns: int
    end_ns: int
    state: State
    energy_uj: Mapping[tuple[str, State], int]
    tokens: Mapping[tuple[str, Kind], int]
