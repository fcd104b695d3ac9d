"""One simulated board: watts that follow the load, and an energy whose exact value is known at every instant."""

from __future__ import annotations

from typing import Final, NamedTuple

from tokenwatt.demo.load import Load
from tokenwatt.demo.profiles import BoardModel
from tokenwatt.demo.steps import STEP_NS, Steps, mix, permille, stream
from tokenwatt.types import Gpu, GpuState

COUNTER_QUANTUM_NS: Final = 100_000_000
"""The energy counter moves this often, as boards' counters do (20 to 100 ms)."""
_INSTANT_NS: Final = 100_000_000  # Hopper's instant power is 25 ms out of every 100 ms
_MEAN_NS: Final = 1_000_000_000  # POWER_AVERAGE: a mean over 1 s
_AMBIENT_MC: Final = 26_000
_THERMAL_LAG_STEPS: Final = 80  # 20 s
_OVERDRIVE_PERMILLE: Final = 1030  # a full prefill wants a little more than the limit, which then holds it down
_UJ_PER_STEP_AND_MW: Final = STEP_NS // 1_000_000  # 1 mW for 1 ms is 1 uJ
_UTILIZATION_STEPS: Final = 4


class BoardStep(NamedTuple):
    """One step: its power, what it would have been without a limit, and the energy and temperature at its end."""

    power_mw: int
    demand_mw: int
    energy_uj: int
    temperature_mc: int


class Board:
    """A board. ``load``: that of the one server on it, which counts the tokens of all its boards; None: nothing is on it."""

    def __init__(self, model: BoardModel, index: int, load: Load | None, *, seed: int, origin_ns: int) -> None:
        self.model = model
        self.load = load
        # Not a UUID that any board has: it says what it is wherever it is shown.
        self.gpu = Gpu(
            uuid=f"GPU-00000000-demo-0000-0000-{index:012d}",
            index=index,
            name=f"{model.name} (simulated)",
            driver="simulated",
            pci_bus_id=f"00000000:{0x10 + index:02X}:00.0",
            power_limit_max_mw=model.limit_mw,
        )
        self._origin_ns = origin_ns
        self._noise_seed = stream(seed, self.gpu.uuid)
        self._spread = permille(self._noise_seed, -1, 15)  # no two boards draw quite the same
        powers = [load.profile.decode_power_mw(n) for n in range(load.profile.max_running + 1)] if load else [model.idle_mw]
        self._decode_mw = [p * self._spread // 1000 for p in powers]
        idle_mw = self._decode_mw[0]
        self._steps = Steps(BoardStep(idle_mw, idle_mw, 0, self._warm_mc(idle_mw)), self._advance)
        # A counter counts since the driver was loaded: it starts anywhere, never at nothing.
        self._counted_before_uj = 10**12 + mix(self._noise_seed, -2) % 10**13

    def energy_uj(self, t_ns: int) -> int:
        """The truth: microjoules between the origin and ``t_ns`` (negative before it)."""
        since_ns = t_ns - self._origin_ns
        if since_ns < 0:
            return self._decode_mw[0] * since_ns // 1_000_000
        k, into_ns = divmod(since_ns, STEP_NS)
        before, now = self._steps.around(k)
        return before.energy_uj + now.power_mw * into_ns // 1_000_000

    def power_mw(self, t_ns: int) -> int:
        """The truth: power at ``t_ns``, constant within a step."""
        return self._step(t_ns).power_mw

    def counter_mj(self, t_ns: int, reset_ns: int | None = None) -> int:
        """The hardware counter: the truth at its last update, in whole mJ. Zero at ``reset_ns``, where one was."""
        updated_ns = t_ns - (t_ns - self._origin_ns) % COUNTER_QUANTUM_NS
        if reset_ns is None:
            return (self._counted_before_uj + self.energy_uj(updated_ns)) // 1000
        return max(0, self.energy_uj(updated_ns) - self.energy_uj(reset_ns)) // 1000

    def power_mean_mw(self, t_ns: int) -> int:
        """Mean power of the last second."""
        return (self.energy_uj(t_ns) - self.energy_uj(t_ns - _MEAN_NS)) // 1000

    def power_instant_mw(self, t_ns: int) -> int:
        """Power as the instant field tells it: it sees a part of the time, so it strays around the truth."""
        window = (t_ns - self._origin_ns) // _INSTANT_NS
        return self.power_mw(t_ns) * permille(self._noise_seed ^ 1, window, 15) // 1000

    def state(self, t_ns: int) -> GpuState:
        """What else the board tells. It lists no processes: the demo's settings name the GPUs of each server."""
        step = self._step(t_ns)
        return GpuState(
            gpu=self.gpu,
            t_ns=t_ns,
            power_limit_mw=self.model.limit_mw,
            utilization_percent=self._utilization_percent(t_ns),
            memory_used_bytes=self._memory_used_bytes(),
            memory_total_bytes=self.model.memory_bytes,
            temperature_celsius=step.temperature_mc // 1000,
            sm_clock_hz=self._clock_hz(step),
            clock_events=self._clock_events(t_ns, step),
            processes=None,
        )

    def _step(self, t_ns: int) -> BoardStep:
        return self._steps.at((t_ns - self._origin_ns) // STEP_NS)

    def _advance(self, k: int, before: BoardStep) -> BoardStep:
        demand_mw = self._demand_mw(k) * permille(self._noise_seed, k, 8) // 1000
        power_mw = min(demand_mw, self.model.limit_mw)
        lag_mc = self._warm_mc(power_mw) - before.temperature_mc
        return BoardStep(
            power_mw,
            demand_mw,
            before.energy_uj + power_mw * _UJ_PER_STEP_AND_MW,
            before.temperature_mc + lag_mc // _THERMAL_LAG_STEPS,
        )

    def _demand_mw(self, k: int) -> int:
        if self.load is None:
            return self._decode_mw[0]
        step = self.load.step(k)
        decode_mw = self._decode_mw[step.running]
        full_mw = max(decode_mw, self.model.limit_mw * _OVERDRIVE_PERMILLE // 1000)
        return decode_mw + (full_mw - decode_mw) * step.prefill_permille // 1000

    def _warm_mc(self, power_mw: int) -> int:
        return _AMBIENT_MC + power_mw * self.model.heat_mc_per_w // 1000

    def _busy(self, k: int) -> bool:
        return self.load is not None and self.load.step(k).running > 0

    def _utilization_percent(self, t_ns: int) -> int:
        k = (t_ns - self._origin_ns) // STEP_NS
        return 100 * sum(self._busy(k - back) for back in range(_UTILIZATION_STEPS)) // _UTILIZATION_STEPS

    def _memory_used_bytes(self) -> int:
        # vLLM takes its share at once (gpu_memory_utilization, 0.92), whatever runs.
        return self.model.memory_bytes * 92 // 100 if self.load else 0

    def _clock_hz(self, step: BoardStep) -> int:
        if self.load is None:
            return self.model.sm_clock_idle_hz
        return self.model.sm_clock_hz * step.power_mw // step.demand_mw  # a process with a context keeps the clock up, also when idle

    def _clock_events(self, t_ns: int, step: BoardStep) -> frozenset[str]:
        if not self._busy((t_ns - self._origin_ns) // STEP_NS):
            return frozenset({"gpu_idle"})
        return frozenset({"sw_power_cap"}) if step.demand_mw > step.power_mw else frozenset()
