"""The books of one board: its energy, and to whom each microjoule of it went."""

from __future__ import annotations

from tokenwatt.accounting.divide import divide
from tokenwatt.accounting.energy_counter import SECOND_NS, Booking, EnergyCounter
from tokenwatt.accounting.rings import agreement_ring, board_ring, owner_ring
from tokenwatt.attribution.sharing import Sharing
from tokenwatt.snapshot import PowerStatistics
from tokenwatt.types import EnergyReading, Gpu, GpuProcess, GpuState, Share, Split

AWAY_AFTER_NS = SECOND_NS
"""A board without energy for this long is away: intervals no longer wait for it."""

PROCESSES_STAY_NS = 5 * SECOND_NS
"""A list of processes that cannot be read is taken for the one before, for this long."""

AGREEMENT_NS = 300 * SECOND_NS
STATISTICS_NS = 60 * SECOND_NS


class Owner:
    """One server's part in one board: all that was booked to it, and how much of that is in closed intervals."""

    def __init__(self) -> None:
        self.total_uj = 0
        self.closed_uj = 0
        self.booked_ns: int | None = None
        """The instant up to which energy was booked."""
        self._ring = owner_ring()
        self._gaps: list[tuple[int, int]] = []

    def book(self, since_ns: int, t_ns: int, delta_uj: int, *, step: bool) -> None:
        """Add energy used between two instants. ``step``: nobody saw when; all of it arrives at ``t_ns``."""
        flat_until_ns = t_ns - 1 if step else since_ns
        # The line from the last point must not run through a time in which this server had no part, or that nobody saw.
        if self.booked_ns is None or self.booked_ns < flat_until_ns:
            self._ring.append(flat_until_ns, self.total_uj)
        self.booked_ns = t_ns
        self.total_uj += delta_uj
        self._ring.append(t_ns, self.total_uj)
        if step and delta_uj:
            self._gaps.append((t_ns, delta_uj))

    def close(self, t_ns: int) -> tuple[int, int]:
        """Close at an instant: the energy since the last close, and how much of it came out of gaps."""
        if self.booked_ns is None:
            return 0, 0
        value_uj = max(self._ring.value_at(t_ns), self.closed_uj)
        energy_uj, self.closed_uj = value_uj - self.closed_uj, value_uj
        if not self._gaps:
            return energy_uj, 0
        gap_uj = sum(delta for t, delta in self._gaps if t <= t_ns)
        self._gaps = [(t, delta) for t, delta in self._gaps if t > t_ns]
        return energy_uj, gap_uj


class BoardBook:
    """One board: counter, owners, and how well it can be seen."""

    def __init__(self, gpu: Gpu, power_period_ns: int) -> None:
        self.gpu = gpu
        self.counter = EnergyCounter(_bound_mw(gpu))
        self.unattributed_uj = 0
        self.owners: dict[str, Owner] = {}
        self.shares: tuple[Share, ...] = (Share(None, 1),)
        self.split: Split | None = None
        self.sharing = Sharing()
        self.state: GpuState | None = None
        self.processes: tuple[GpuProcess, ...] | None = None
        """Those it listed last."""
        self._listed_ns = 0
        self.last_reading: EnergyReading | None = None
        self.away = False
        self.gap_end_ns: int | None = None
        """When the board was last seen again after it was away, or its counter began anew."""
        self.missed = 0
        self._period_ns = power_period_ns
        self._attempt_ns: int | None = None
        self._ring = board_ring()
        self._counter_ring, self._integral_ring = agreement_ring(), agreement_ring()

    @property
    def booked_ns(self) -> int | None:
        """The instant up to which this board's energy is known."""
        return self.counter.last_t_ns

    @property
    def up(self) -> bool:
        """Whether the last read was good."""
        return self.last_reading is not None and self.last_reading.error is None

    def describe(self, state: GpuState) -> bool:
        """Take the board's slower figures; a new driver's counter is a new counter. Tells whether others may hold the board now."""
        before = self.state
        pids = _pids(self.processes)
        if state.gpu.driver != self.gpu.driver:
            self.counter.driver_changed()
        self.gpu, self.state = state.gpu, state
        self.counter.limit_mw = _bound_mw(state.gpu)
        if state.processes is not None or state.t_ns - self._listed_ns > PROCESSES_STAY_NS:
            self.processes, self._listed_ns = state.processes, state.t_ns
        return before is None or pids != _pids(self.processes) or before.gpu.index != state.gpu.index

    def read(self, reading: EnergyReading) -> Booking | None:
        """Take one reading; what it brought is to be given to ``book``."""
        if self._attempt_ns is not None:
            self._count_missed(reading, reading.t_ns - self._attempt_ns)
        self._attempt_ns = reading.t_ns
        self.last_reading = reading
        since_ns = self.counter.last_t_ns
        booking = self.counter.read(reading) if reading.error is None else None
        if booking is None:
            if since_ns is None and self.booked_ns is not None:
                self._begin(reading.t_ns)
            elif since_ns is None or reading.lost or reading.t_ns - since_ns > AWAY_AFTER_NS:
                self.away = True
            return None
        self._ring.append(booking.t_ns, self.counter.total_uj)
        if self.away or booking.gap:
            self.away, self.gap_end_ns = False, reading.t_ns
            return booking._replace(gap=True)
        return booking

    def book(self, booking: Booking, shares: tuple[Share, ...], split: Split | None) -> None:
        """Give a tick's energy to its owners. The parts sum to the whole."""
        self.shares, self.split = shares, split
        if len(shares) == 1:
            self._give(booking, shares[0].server, booking.delta_uj)
            return
        for share, part_uj in zip(shares, divide(booking.delta_uj, [share.weight for share in shares]), strict=True):
            self._give(booking, share.server, part_uj)

    def statistics(self) -> PowerStatistics | None:
        """Power over the last minute, where the ring reaches that far."""
        last = self._ring.last
        if last is None:
            return None
        span = (last[0] - STATISTICS_NS, last[0], SECOND_NS)
        power_uw = self._ring.slope_percentiles(*span, (0, 500, 950, 1000))
        if power_uw is None:
            return None
        return PowerStatistics(*(uw // 1000 for uw in power_uw))

    def agreement(self) -> float | None:
        """Energy by the counter over energy by the integral of power. None: no counter, or nothing to compare yet."""
        last = self._counter_ring.last
        if self.counter.source != "counter" or last is None or len(self._counter_ring) < 2:
            return None
        counter_uj, integral_uj = self._counter_ring.paired_delta(self._integral_ring, last[0] - AGREEMENT_NS, last[0])
        return counter_uj / integral_uj if integral_uj else None

    def compare(self) -> None:
        """Note counter and integral side by side; called about once a second."""
        if self.booked_ns is None or self.counter.source != "counter":
            return
        last = self._counter_ring.last
        if last is None or last[0] < self.booked_ns:
            self._counter_ring.append(self.booked_ns, self.counter.total_uj)
            self._integral_ring.append(self.booked_ns, self.counter.integral.total_uj)

    def _give(self, booking: Booking, server: str | None, part_uj: int) -> None:
        if server is None:
            self.unattributed_uj += part_uj
            return
        owner = self.owners.get(server)
        if owner is None:
            owner = self.owners[server] = Owner()
        owner.book(booking.since_ns, booking.t_ns, part_uj, step=booking.gap)

    def _begin(self, t_ns: int) -> None:
        """The first reading: energy counts from here."""
        if self.away:
            self.away, self.gap_end_ns = False, t_ns
        self._ring.append(t_ns, 0)

    def _count_missed(self, reading: EnergyReading, since_attempt_ns: int) -> None:
        if reading.error is None and 2 * since_attempt_ns < 3 * self._period_ns:
            return  # on time
        due = max(round(since_attempt_ns / self._period_ns), 1)
        self.missed += due if reading.error is not None else due - 1


def _pids(processes: tuple[GpuProcess, ...] | None) -> set[int] | None:
    return None if processes is None else {process.pid for process in processes}


def _bound_mw(gpu: Gpu) -> int | None:
    return gpu.power_limit_max_mw if gpu.scope == "gpu" else None
