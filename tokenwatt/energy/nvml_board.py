"""One board through NVML: which of its calls and fields the driver has, its energy and power, and its other figures.

A call that the driver turns out not to have is not made again on this handle. Whatever worked once is never given up: an error of it
later is this one answer missing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Any, Final

from tokenwatt.energy import nvml_errors
from tokenwatt.energy.clock_events import clock_event_names
from tokenwatt.energy.nvml_errors import code_of
from tokenwatt.types import EnergyReading, Gpu, GpuProcess, GpuState

# Ids by number: the binding's constants follow its own header, and headers have renumbered fields (nvml.h 13: 251-253 became 269-271).
TOTAL_ENERGY: Final = 83
POWER_AVERAGE: Final = 185
POWER_INSTANT: Final = 186
_SCOPE_GPU: Final = 0
# Pairs, since the binding tries to unpack every entry first and raises and catches a TypeError inside for a plain id.
_FIELDS: Final = ((TOTAL_ENERGY, _SCOPE_GPU), (POWER_AVERAGE, _SCOPE_GPU), (POWER_INSTANT, _SCOPE_GPU))

# nvmlFieldValue_t: fieldId, (scopeId, timestamp, latencyUsec,) valueType, nvmlReturn, value. All at once this takes a sixth of the time of
# reading it by attribute, which the binding's structures do in Python. NVML exists for little-endian machines only.
_ENTRY: Final = struct.Struct("<I20xiiQ")

# nvmlValueType_t
_UNSIGNED_INT: Final = 1
_UNSIGNED_LONG: Final = 2  # 64 bits wherever there is NVML for Linux
_UNSIGNED_LONG_LONG: Final = 3
_OTHER_TYPES: Final = {0: "<d", 4: "<q", 5: "<i", 6: "<H"}  # double, signed long long, signed int, unsigned short
_NOT_AVAILABLE_32: Final = 2**32 - 1  # NVML_VALUE_NOT_AVAILABLE, in the two widths it comes in
_NOT_AVAILABLE_64: Final = 2**64 - 1

_SAMPLES_AT_FIRST_US: Final = 1_000_000
"""The driver keeps minutes of utilisation samples: of those from before the first question only the last second counts."""


def field_number(value_type: int, raw: int) -> int | None:
    """The number in a field's eight bytes. None: not available, negative, or of a type that this header does not know."""
    if value_type == _UNSIGNED_INT:
        return _available(raw & 0xFFFFFFFF)
    if value_type in (_UNSIGNED_LONG_LONG, _UNSIGNED_LONG):
        return None if raw == _NOT_AVAILABLE_64 else raw
    code = _OTHER_TYPES.get(value_type)
    if code is None:
        return None
    number = struct.unpack_from(code, raw.to_bytes(8, "little"))[0]
    return round(number) if 0 <= number < 2**63 else None


def _available(figure: int | None) -> int | None:
    return None if figure == _NOT_AVAILABLE_32 else figure


class _Figure:
    """One figure by the first of several calls that the driver has."""

    __slots__ = ("_calls", "_nvml_error", "_worked")

    def __init__(self, nvml: Any, *calls: Callable[[], Any]) -> None:
        self._calls = list(calls)
        self._nvml_error: type[Exception] = nvml.NVMLError
        self._worked = False

    def ask(self) -> Any | None:
        """The figure. None: the driver does not have it.

        Raises:
            NVMLError: any other failure.
        """
        while self._calls:
            try:
                answer = self._calls[0]()
            except self._nvml_error as error:
                if self._worked or code_of(error) not in nvml_errors.UNKNOWN_TO_DRIVER:
                    raise
                del self._calls[0]
            else:
                self._worked = True
                return answer
        return None

    def ask_or_none(self) -> Any | None:
        """The figure, None where it could not be read."""
        try:
            return self.ask()
        except self._nvml_error:
            return None


class _Batch:
    """One call for several fields, again and again: the array it fills is kept.

    The binding's own call makes one each time, through attributes written in Python: two thirds of what a reading costs.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._fields: tuple[tuple[int, int], ...] = ()
        self._values: Any = None
        self._call: Callable[[], int] | None = None

    def ask(self, fields: tuple[tuple[int, int], ...]) -> Any:
        """The array of entries (id, scope), each with its own return code.

        Raises:
            NVMLError: the call as a whole failed.
        """
        if fields is not self._fields:
            self._prepare(fields)
        if self._call is None:
            return self._nvml.nvmlDeviceGetFieldValues(self._handle, fields)
        code = self._call()
        if code:
            raise self._nvml.NVMLError(code)
        return self._values

    def _prepare(self, fields: tuple[tuple[int, int], ...]) -> None:
        find = getattr(self._nvml, "_nvmlGetFunctionPointer", None)
        if find is not None:  # a private name of the binding, in every release since 2011
            self._values = (self._nvml.c_nvmlFieldValue_t * len(fields))()
            for entry, (field, scope) in zip(self._values, fields, strict=True):
                entry.fieldId, entry.scopeId = field, scope
            self._call = partial(find("nvmlDeviceGetFieldValues"), self._handle, len(fields), self._values)
        self._fields = fields


class NvmlBoard:
    """One board behind one handle. ``gpu`` is replaced when its index changes; ``failure`` is the code of a read that found it gone."""

    def __init__(self, nvml: Any, handle: Any, gpu: Gpu) -> None:
        self.gpu = gpu
        self.handle = handle
        self.failure: int | None = None
        self._nvml = nvml
        self._nvml_error: type[Exception] = nvml.NVMLError
        self._fields: tuple[tuple[int, int], ...] = _FIELDS
        self._batch = _Batch(nvml, handle)
        self._worked: set[int] = set()
        self._energy = _Figure(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        self._power = _Figure(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        self._samples_since_us = 0
        self._samples = _Figure(nvml, self._ask_samples)
        self._state = _StateFigures(nvml, handle)

    # -- energy and power

    def read(self, *, want_processes: bool) -> EnergyReading:
        """Energy and power now. Never raises for what NVML answers."""
        begin_ns = monotonic_ns()
        try:
            figures, failure = self._read_fields()
            end_ns = monotonic_ns()
            if len(self._fields) < len(_FIELDS):
                begin_ns, end_ns, failure = self._read_functions(figures, begin_ns, end_ns, failure)
        except self._nvml_error as error:
            return self._failed(begin_ns, error)
        energy_mj, average_mw, instant_mw = figures.get(TOTAL_ENERGY), figures.get(POWER_AVERAGE), figures.get(POWER_INSTANT)
        if energy_mj is None and average_mw is None and instant_mw is None:
            return self._failed(begin_ns, failure)
        self.failure = None
        if not want_processes:
            self._samples_since_us = 0
        return EnergyReading(
            self.gpu.uuid,
            (begin_ns + end_ns) // 2,
            energy_mj,
            instant_mw if average_mw is None else average_mw,
            instant_mw,
            self._samples.ask_or_none() if want_processes else None,
        )

    def _failed(self, t_ns: int, error: Exception | None) -> EnergyReading:
        if error is None:
            return EnergyReading(self.gpu.uuid, t_ns, error="the GPU tells neither its energy nor its power")
        gone = code_of(error) in nvml_errors.HANDLE_GONE
        self.failure = code_of(error) if gone else None
        return EnergyReading(self.gpu.uuid, t_ns, error=nvml_errors.sentence(error), lost=gone)

    def _read_fields(self) -> tuple[dict[int, int | None], Exception | None]:
        """Figures by field id, from one call, and what kept one of them away just now.

        Fields that the driver does not have are not asked for again.
        """
        figures: dict[int, int | None] = {}
        if not self._fields:
            return figures, None
        try:
            values = self._batch.ask(self._fields)
        except self._nvml_error as error:
            if self._worked or code_of(error) not in nvml_errors.UNKNOWN_TO_DRIVER:
                raise
            self._fields = ()
            return figures, None
        failures: list[tuple[int, int]] = []
        for field, value_type, code, raw in _ENTRY.iter_unpack(values):
            if code:
                failures.append((field, code))
            else:
                figures[field] = field_number(value_type, raw)
        if len(self._worked) < len(figures):
            self._worked.update(figures)
        return figures, self._judge(failures) if failures else None

    def _judge(self, failures: list[tuple[int, int]]) -> Exception | None:
        """Learn from the entries that failed. Returns an error that is not for good; raises where the board is gone."""
        missing = {field for field, code in failures if field not in self._worked and code in nvml_errors.UNKNOWN_TO_DRIVER}
        self._fields = tuple(entry for entry in self._fields if entry[0] not in missing)
        passing: Exception | None = None
        for field, code in failures:
            if field not in missing:
                passing = self._nvml.NVMLError(code)
            # A lost GPU shows in its entries, while the call as a whole succeeds.
            if code in nvml_errors.BOARD_GONE:
                raise self._nvml.NVMLError(code)
        return passing

    def _read_functions(
        self, figures: dict[int, int | None], begin_ns: int, end_ns: int, failure: Exception | None
    ) -> tuple[int, int, Exception | None]:
        """Fill in by functions what no field tells. Returns when the call began and ended that brought the energy, and what failed."""
        fields = {field for field, _ in self._fields}
        if TOTAL_ENERGY not in fields:
            before_ns = monotonic_ns()
            energy_mj, failure = self._ask(self._energy, failure)
            if energy_mj is not None:
                figures[TOTAL_ENERGY] = energy_mj
                begin_ns, end_ns = before_ns, monotonic_ns()
        if not fields & {POWER_AVERAGE, POWER_INSTANT}:
            power_mw, failure = self._ask(self._power, failure)
            figures[POWER_AVERAGE] = _available(power_mw)
        return begin_ns, end_ns, failure

    def _ask(self, figure: _Figure, failure: Exception | None) -> tuple[int | None, Exception | None]:
        """The figure, and the first failure so far. Raises where the board is gone."""
        try:
            return figure.ask(), failure
        except self._nvml_error as error:
            if code_of(error) in nvml_errors.HANDLE_GONE:
                raise
            return None, failure or error

    # -- the processes' utilisation

    def _ask_samples(self) -> dict[int, int]:
        """SM utilisation in per cent by pid, the mean of each pid's samples since the last question."""
        since_us = self._samples_since_us
        try:
            answer = self._nvml.nvmlDeviceGetProcessUtilization(self.handle, since_us)
        except self._nvml_error as error:
            # Not found: no sample since. 0 (success): the binding takes "there is nothing" for a failure.
            if code_of(error) in (0, nvml_errors.NOT_FOUND):
                return {}
            raise
        samples = [(s.timeStamp, s.pid, s.smUtil) for s in answer]
        newest_us = max((time_us for time_us, _, _ in samples), default=since_us)
        self._samples_since_us = max(newest_us, since_us)
        oldest_us = since_us or newest_us - _SAMPLES_AT_FIRST_US
        by_pid: dict[int, list[int]] = {}
        for time_us, pid, percent in samples:
            # Drivers were seen to return entries of before, and absurd percentages in entries never filled in.
            if time_us > oldest_us and percent <= 100:
                by_pid.setdefault(pid, []).append(percent)
        return {pid: round(sum(percents) / len(percents)) for pid, percents in by_pid.items()}

    # -- the rest

    def state(self) -> GpuState | None:
        """The board's other figures, each on its own. None: not one of them could be read."""
        return self._state.read(self.gpu)


class _StateFigures:
    """What a board tells besides energy and power."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        def by(name: str, *arguments: Any) -> list[Callable[[], Any]]:
            call = getattr(nvml, name, None)  # bindings differ in what they have
            return [] if call is None else [lambda: call(handle, *arguments)]

        memory = by("nvmlDeviceGetMemoryInfo", nvml.nvmlMemory_v2) + by("nvmlDeviceGetMemoryInfo")
        # Marked as going away with CUDA 14, its successor is missing in drivers before 570.
        temperature = by("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU) + by("nvmlDeviceGetTemperatureV", nvml.NVML_TEMPERATURE_GPU)
        reasons = by("nvmlDeviceGetCurrentClocksEventReasons") + by("nvmlDeviceGetCurrentClocksThrottleReasons")
        self._limit = _Figure(nvml, *by("nvmlDeviceGetEnforcedPowerLimit"))
        self._utilization = _Figure(nvml, *by("nvmlDeviceGetUtilizationRates"))
        self._memory = _Figure(nvml, *memory)
        self._temperature = _Figure(nvml, *temperature)
        self._clock = _Figure(nvml, *by("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM))
        self._reasons = _Figure(nvml, *reasons)
        # By version: for a library without it, the names without a version raise what is no NVMLError (NVMLLibraryMismatchError).
        self._processes = _Figure(nvml, *by("nvmlDeviceGetComputeRunningProcesses_v3"))
        self._mps_processes = _Figure(nvml, *by("nvmlDeviceGetMPSComputeRunningProcesses_v3"))

    def read(self, gpu: Gpu) -> GpuState | None:
        utilization = self._utilization.ask_or_none()
        memory = self._memory.ask_or_none()
        clock_mhz = _available(self._clock.ask_or_none())
        reasons = self._reasons.ask_or_none()
        state = GpuState(
            gpu,
            monotonic_ns(),
            power_limit_mw=_available(self._limit.ask_or_none()),
            utilization_percent=None if utilization is None else _available(utilization.gpu),
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
            temperature_celsius=_available(self._temperature.ask_or_none()),
            sm_clock_hz=None if clock_mhz is None else clock_mhz * 1_000_000,
            clock_events=None if reasons is None else clock_event_names(reasons),
            processes=self._running(),
        )
        rest = (state.power_limit_mw, utilization, memory, state.temperature_celsius, clock_mhz, reasons, state.processes)
        return None if all(figure is None for figure in rest) else state

    def _running(self) -> tuple[GpuProcess, ...] | None:
        processes = self._processes.ask_or_none()
        if processes is None:
            return None
        # Clients of an MPS server are listed apart, and the binding tells an unknown amount of memory as None.
        listed = [*processes, *(self._mps_processes.ask_or_none() or ())]
        return tuple({p.pid: GpuProcess(p.pid, p.usedGpuMemory) for p in listed}.values())
