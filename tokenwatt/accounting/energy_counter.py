"""One board's energy from its readings: the hardware counter where there is one, else the integral of power."""

from __future__ import annotations

from typing import NamedTuple

from tokenwatt.types import EnergyReading

SECOND_NS = 1_000_000_000

INTEGRATION_GAP_NS = 5 * SECOND_NS
"""Power is not integrated over longer gaps: between two values that far apart it may have been anything."""

COUNTER_PATIENCE_NS = 60 * SECOND_NS
"""A counter that cannot be read for this long, while power can, is given up, and power integrated."""

REJECTIONS_TO_RESTART = 3


class Booking(NamedTuple):
    """Energy that a reading brought since the instant booked before. ``gap``: the counter began anew, so some of it is missing."""

    since_ns: int
    t_ns: int
    delta_uj: int
    gap: bool

    def split(self, at_ns: int) -> tuple[Booking, Booking]:
        """The parts before and after an instant inside it, by time."""
        before_uj = self.delta_uj * (at_ns - self.since_ns) // (self.t_ns - self.since_ns)
        return Booking(self.since_ns, at_ns, before_uj, self.gap), Booking(at_ns, self.t_ns, self.delta_uj - before_uj, self.gap)


class PowerIntegral:
    """The trapezoid of power over time, exact: what rounding leaves is carried on."""

    def __init__(self) -> None:
        self.total_uj = 0
        self._twice_mw_ns = 0
        self._last: tuple[int, int] | None = None

    def add(self, t_ns: int, power_mw: int) -> None:
        """Integrate up to ``t_ns``."""
        if self._last is not None:
            t0_ns, p0_mw = self._last
            if t_ns - t0_ns <= INTEGRATION_GAP_NS:
                # 1 mW for 1 ns is 1e-6 uJ; the trapezoid's half is kept as a factor of two.
                whole, self._twice_mw_ns = divmod(self._twice_mw_ns + (p0_mw + power_mw) * (t_ns - t0_ns), 2_000_000)
                self.total_uj += whole
        self._last = (t_ns, power_mw)


class EnergyCounter:
    """A board's energy since its first reading, in microjoules: only ever grows, whatever the hardware's counter does.

    ``limit_mw`` is the highest power limit the board allows; None (not known, or a module's counter, which holds more than the board): no
    reading is too high.
    """

    def __init__(self, limit_mw: int | None) -> None:
        self.limit_mw = limit_mw
        self.total_uj = 0
        self.resets = 0
        self.rejected = 0
        self.source = "integral"
        self.integral = PowerIntegral()
        self.last_t_ns: int | None = None
        """When the energy booked so far was read."""
        self._last_mj: int | None = None
        self._integral_then_uj = 0
        self._rejected_in_a_row = 0
        self._driver_changed = False

    def driver_changed(self) -> None:
        """The driver was replaced: its counter is another one, even where its value is higher."""
        self._driver_changed = self._last_mj is not None

    def read(self, reading: EnergyReading) -> Booking | None:
        """Take one good reading. None: nothing to book (the first one, a rejected one, one without figures)."""
        if self.last_t_ns is not None and reading.t_ns <= self.last_t_ns:
            return None  # a call that hung and came back after a later one
        if reading.power_mw is not None:
            self.integral.add(reading.t_ns, reading.power_mw)
        if reading.energy_mj is not None:
            return self._by_counter(reading.t_ns, reading.energy_mj)
        if self._last_mj is not None and self.last_t_ns is not None and reading.power_mw is not None:
            if reading.t_ns - self.last_t_ns <= COUNTER_PATIENCE_NS:
                return None
            self._last_mj = None
        return self._by_integral(reading.t_ns, gap=False) if self._last_mj is None and reading.power_mw is not None else None

    def _by_counter(self, t_ns: int, value_mj: int) -> Booking | None:
        if self._last_mj is None or self.last_t_ns is None:
            # Before the counter's first value there may be ticks that were integrated: the energy up to now is still the integral's.
            booking = self._by_integral(t_ns, gap=False)
            self._last_mj, self.source = value_mj, "counter"
            return booking
        fell = value_mj < self._last_mj or self._driver_changed
        delta_uj = (value_mj if fell else value_mj - self._last_mj) * 1000
        if not self._possible(delta_uj, t_ns - self.last_t_ns):
            return self._reject(t_ns, value_mj)
        self.resets += fell
        self._driver_changed = False
        self._last_mj = value_mj
        return self._book(self.last_t_ns, t_ns, delta_uj, gap=fell)

    def _possible(self, delta_uj: int, dt_ns: int) -> bool:
        """The contract's rule 3. The second is for counters that tick late, and for clocks."""
        return self.limit_mw is None or delta_uj * 5_000_000 <= 6 * self.limit_mw * (dt_ns + SECOND_NS)

    def _reject(self, t_ns: int, value_mj: int) -> Booking | None:
        self.rejected += 1
        self._rejected_in_a_row += 1
        if self._rejected_in_a_row < REJECTIONS_TO_RESTART:
            return None
        self.resets += 1
        self._driver_changed = False
        self._last_mj = value_mj
        return self._by_integral(t_ns, gap=True)

    def _by_integral(self, t_ns: int, *, gap: bool) -> Booking | None:
        if self.last_t_ns is None:
            self._mark(t_ns)
            return None
        if self._last_mj is None:
            self.source = "integral"
        return self._book(self.last_t_ns, t_ns, self.integral.total_uj - self._integral_then_uj, gap=gap)

    def _book(self, since_ns: int, t_ns: int, delta_uj: int, *, gap: bool) -> Booking:
        self.total_uj += delta_uj
        self._mark(t_ns)
        return Booking(since_ns, t_ns, delta_uj, gap)

    def _mark(self, t_ns: int) -> None:
        self._rejected_in_a_row = 0
        self.last_t_ns = t_ns
        self._integral_then_uj = self.integral.total_uj
