"""A node of NVIDIA GPUs for tests: describes boards to our own libnvidia-ml.so.1, injects faults into it, and knows the true energy.

The library is built with the system's C compiler. A daemon under test gets ``node.environment(library)``; in this process ``load(library)``
comes first: dlopen finds a library that is loaded already by its soname, so nvidia-ml-py then takes ours, unmodified.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.nvml.control import CALLS, MAX_GPUS, NOT_SET, Control, Faults, GpuEntry

HERE: Final = Path(__file__).parent
LIBRARY: Final = "libnvidia-ml.so.1"
CONTROL_VARIABLE: Final = "TOKENWATT_TEST_NVML"

NOT_SUPPORTED: Final = 3
UNINITIALIZED: Final = 1
ENERGY, POWER_AVERAGE, POWER_INSTANT = 83, 185, 186

Steps = Sequence[tuple[float, int]]
"""A power trace: (milliseconds, milliwatts), repeating."""


def build(directory: Path, *, without: Iterable[str] = ()) -> Path:
    """Compile the library into ``directory``, as a driver that lacks the calls in ``without`` would ship it. Returns its path."""
    path = directory / LIBRARY
    renames = [f"-D{call}=absent_{call}" for call in without]
    sources = sorted(str(source) for source in HERE.glob("*.c"))
    warnings = ["-Wall", "-Wextra", "-Werror"]
    link = ["-shared", f"-Wl,-soname,{LIBRARY}", "-o", str(path), "-lpthread"]
    subprocess.run(["cc", "-std=gnu11", "-O0" if renames else "-O1", "-fPIC", *warnings, *renames, *sources, *link], check=True)
    return path


def load(library: Path) -> None:
    """Make nvidia-ml-py of this process use ``library``. Only the first library that a process loads counts."""
    ctypes.CDLL(str(library))


class Trace:
    """One repeating power trace from one instant on, and the energy (pJ) of the board up to that instant."""

    def __init__(self, start_ns: int, base_pj: int, steps: Steps) -> None:
        self.start_ns = start_ns
        self.base_pj = base_pj
        self.steps = [(round(ms * 1e6), mw) for ms, mw in steps]
        self._round_ns = sum(ns for ns, _ in self.steps)
        self._round_pj = sum(ns * mw for ns, mw in self.steps)

    def energy_pj(self, t_ns: int) -> int:
        rounds, left_ns = divmod(t_ns - self.start_ns, self._round_ns)
        energy_pj = self.base_pj + rounds * self._round_pj
        for ns, mw in self.steps:
            energy_pj += min(left_ns, ns) * mw
            left_ns -= min(left_ns, ns)
        return energy_pj


class Board:
    """One GPU. Figures of ``entry`` that no method is needed for (temperature, memory_used ...) are written straight to it."""

    def __init__(self, entry: GpuEntry, slot: int, steps: Steps) -> None:
        self.entry = entry
        self._zero_pj = 0
        self._traces: list[Trace] = []
        entry.uuid = f"GPU-{slot:08x}-1111-2222-3333-444444444444".encode()
        entry.name = b"NVIDIA H100 80GB HBM3"
        entry.bus_id = f"00000000:{slot + 1:02X}:00.0".encode()
        entry.present = 1
        entry.gone_code = 2
        entry.limit_min_mw, entry.limit_max_mw, entry.limit_mw = 200_000, 700_000, 650_000
        entry.utilization, entry.temperature, entry.sm_clock_mhz = 50, 40, 1980
        entry.memory_total, entry.memory_used, entry.memory_reserved = 80 << 30, 10 << 30, 1 << 30
        self.set_trace(steps)

    @property
    def uuid(self) -> str:
        return bytes(self.entry.uuid).decode()

    # -- power and energy

    def set_trace(self, steps: Steps) -> None:
        """From now on the board draws this. Its energy goes on without a step."""
        now_ns = time.monotonic_ns()
        trace = Trace(now_ns, self.energy_pj(now_ns), steps)
        self._traces.append(trace)
        with self._writing() as entry:
            entry.trace.start_ns = now_ns
            entry.trace.base_pj[:] = _words(trace.base_pj)
            entry.trace.step_count = len(trace.steps)
            for i, (ns, mw) in enumerate(trace.steps):
                entry.trace.steps[i].duration_ns, entry.trace.steps[i].power_mw = ns, mw

    def energy_pj(self, t_ns: int) -> int:
        """The truth: what the board has used up to an instant of the monotonic clock."""
        for trace in reversed(self._traces):
            if trace.start_ns <= t_ns:
                return trace.energy_pj(t_ns)
        return 0

    def energy_uj(self, t_ns: int) -> int:
        return self.energy_pj(t_ns) // 10**6

    def counter_mj(self, t_ns: int) -> int:
        """What the energy counter says at an instant, if it moves without a quantum."""
        return int(self.entry.trace.counter_offset_mj) + (self.energy_pj(t_ns) - self._zero_pj) // 10**9

    def reset_counter(self, offset_mj: int = 0) -> None:
        """The counter starts again, at ``offset_mj``."""
        self._zero_pj = self.energy_pj(time.monotonic_ns())
        with self._writing() as entry:
            entry.trace.zero_pj[:] = _words(self._zero_pj)
            entry.trace.counter_offset_mj = offset_mj

    def quantize(self, quantum_ms: int) -> None:
        """The counter moves at multiples of this on the monotonic clock only."""
        with self._writing() as entry:
            entry.trace.quantum_ns = quantum_ms * 10**6

    def without_counter(self) -> None:
        self.field(ENERGY, code=NOT_SUPPORTED)
        self.fail("nvmlDeviceGetTotalEnergyConsumption", NOT_SUPPORTED)

    @contextmanager
    def _writing(self) -> Iterator[GpuEntry]:
        self.entry.sequence += 1
        yield self.entry
        self.entry.sequence += 1

    # -- faults

    def fail(self, call: str, code: int, *, times: int = 0) -> None:
        """The call answers ``code``, this many times (0: until cleared by code 0)."""
        _fail(self.entry.faults, call, code, times)

    def field(self, field_id: int, *, code: int = 0, type_: int | None = None, value: int | None = None) -> None:
        """One field answers an error, another value type, or another value. Without any of them it is well again."""
        kept = [tuple(getattr(f, name) for name, _ in f._fields_) for f in self.entry.fields[: self.entry.field_count] if f.id != field_id]
        if code or type_ is not None or value is not None:
            kept.append((field_id, code, NOT_SET if type_ is None else type_, value is not None, value or 0))
        for entry, figures in zip(self.entry.fields, kept, strict=False):
            entry.id, entry.code, entry.type, entry.has_value, entry.value = figures
        self.entry.field_count = len(kept)

    def stick(self, call: str, stuck: bool = True) -> None:
        """The call does not return until this is taken back."""
        self.entry.faults.stuck[CALLS.index(call)] = stuck

    def calls(self, call: str) -> int:
        return int(self.entry.faults.calls[CALLS.index(call)])

    # -- processes

    def set_processes(self, *processes: tuple[int, int | None], mps: bool = False, sm_percent: int | None = None) -> None:
        """Add processes (pid, bytes or None). With ``sm_percent`` each has a new utilisation sample every 100 ms."""
        for pid, memory in processes:
            entry = self.entry.processes[self.entry.process_count]
            entry.pid, entry.mps, entry.sm_percent = pid, mps, NOT_SET if sm_percent is None else sm_percent
            entry.memory = 2**64 - 1 if memory is None else memory
            self.entry.process_count += 1

    def add_sample(self, pid: int, time_us: int, sm_percent: int) -> None:
        entry = self.entry.samples[self.entry.sample_count]
        entry.time_us, entry.pid, entry.sm_percent = time_us, pid, sm_percent
        self.entry.sample_count += 1


class Node:
    """The control file and the boards in it. ``steps`` is what each board draws at first: one trace a board."""

    def __init__(self, path: Path, *steps: Steps) -> None:
        self.path = path
        with path.open("w+b") as file:
            file.truncate(ctypes.sizeof(Control))
            self._memory = mmap.mmap(file.fileno(), ctypes.sizeof(Control))
        self.control = Control.from_buffer(self._memory)
        self.control.size = ctypes.sizeof(Control)
        self.control.driver_loaded, self.control.driver_epoch, self.control.stale_code = 1, 1, UNINITIALIZED
        self.control.driver = b"580.65.06"
        self.boards: list[Board] = []
        for trace in steps:
            self.add(trace)

    def add(self, steps: Steps) -> Board:
        """Plug one more board in, at the end of the enumeration."""
        slot = len(self.boards)
        assert slot < MAX_GPUS
        board = Board(self.control.gpus[slot], slot, steps)
        self.boards.append(board)
        self.control.gpu_count = slot + 1
        return board

    def environment(self, library: Path) -> dict[str, str]:
        """The environment of a process that is to find these boards."""
        return {**os.environ, CONTROL_VARIABLE: str(self.path), "LD_LIBRARY_PATH": str(library.parent)}

    def fail(self, call: str, code: int, *, times: int = 0) -> None:
        """The call answers ``code`` whichever board it is about."""
        _fail(self.control.faults, call, code, times)

    def stick(self, call: str, stuck: bool = True) -> None:
        self.control.faults.stuck[CALLS.index(call)] = stuck

    def unload_driver(self, stale_code: int = UNINITIALIZED) -> None:
        """Every session is stale, and a new one can't be had."""
        self.control.stale_code = stale_code
        self.control.driver_loaded = 0
        self.control.driver_epoch += 1

    def load_driver(self) -> None:
        """The driver is back: counters begin anew, sessions of before stay stale."""
        for board in self.boards:
            board.reset_counter()
        self.control.driver_loaded = 1

    def calls(self, call: str) -> int:
        return int(self.control.faults.calls[CALLS.index(call)])

    def unstick(self) -> None:
        """Let every call that hangs return."""
        for faults in (self.control.faults, *(board.entry.faults for board in self.boards)):
            ctypes.memset(faults.stuck, 0, ctypes.sizeof(faults.stuck))

    @property
    def cpu_ns(self) -> int:
        """Thread CPU time that was spent inside the library."""
        return int(self.control.cpu_ns)


def _fail(faults: Faults, call: str, code: int, times: int) -> None:
    faults.times[CALLS.index(call)] = times
    faults.code[CALLS.index(call)] = code


def _words(value: int) -> tuple[int, int]:
    return value & (2**64 - 1), value >> 64
