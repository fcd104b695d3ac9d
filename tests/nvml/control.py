"""The layout of the control file: the mirror of control.h."""

from __future__ import annotations

import ctypes
from typing import Final

MAX_GPUS: Final = 16
MAX_STEPS: Final = 64
NOT_SET: Final = 2**32 - 1

CALLS: Final = (
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)
"""Every call that can fail, hang and be counted, in the order of EACH_CALL in control.h."""


class Faults(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_int32 * len(CALLS)),
        ("times", ctypes.c_uint32 * len(CALLS)),
        ("stuck", ctypes.c_uint32 * len(CALLS)),
        ("calls", ctypes.c_uint64 * len(CALLS)),
    )


class Step(ctypes.Structure):
    _fields_ = (("duration_ns", ctypes.c_uint64), ("power_mw", ctypes.c_uint64))


class TraceEntry(ctypes.Structure):
    _fields_ = (
        ("start_ns", ctypes.c_uint64),
        ("base_pj", ctypes.c_uint64 * 2),
        ("zero_pj", ctypes.c_uint64 * 2),
        ("counter_offset_mj", ctypes.c_int64),
        ("quantum_ns", ctypes.c_uint64),
        ("step_count", ctypes.c_uint64),
        ("steps", Step * MAX_STEPS),
    )


class FieldFault(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint32),
        ("code", ctypes.c_int32),
        ("type", ctypes.c_uint32),
        ("has_value", ctypes.c_uint32),
        ("value", ctypes.c_uint64),
    )


class ProcessEntry(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint32),
        ("mps", ctypes.c_uint32),
        ("sm_percent", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("memory", ctypes.c_uint64),
    )


class SampleEntry(ctypes.Structure):
    _fields_ = (("time_us", ctypes.c_uint64), ("pid", ctypes.c_uint32), ("sm_percent", ctypes.c_uint32))


class GpuEntry(ctypes.Structure):
    _fields_ = (
        ("sequence", ctypes.c_uint64),
        ("trace", TraceEntry),
        ("uuid", ctypes.c_char * 96),
        ("name", ctypes.c_char * 96),
        ("bus_id", ctypes.c_char * 32),
        ("present", ctypes.c_uint32),
        ("lost", ctypes.c_uint32),
        ("gone_code", ctypes.c_int32),
        ("limit_min_mw", ctypes.c_uint32),
        ("limit_max_mw", ctypes.c_uint32),
        ("limit_mw", ctypes.c_uint32),
        ("utilization", ctypes.c_uint32),
        ("temperature", ctypes.c_uint32),
        ("sm_clock_mhz", ctypes.c_uint32),
        ("field_count", ctypes.c_uint32),
        ("process_count", ctypes.c_uint32),
        ("sample_count", ctypes.c_uint32),
        ("memory_total", ctypes.c_uint64),
        ("memory_used", ctypes.c_uint64),
        ("memory_reserved", ctypes.c_uint64),
        ("event_reasons", ctypes.c_uint64),
        ("fields", FieldFault * 8),
        ("processes", ProcessEntry * 16),
        ("samples", SampleEntry * 64),
        ("faults", Faults),
    )


class Control(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("gpu_count", ctypes.c_uint32),
        ("driver_loaded", ctypes.c_uint32),
        ("driver_epoch", ctypes.c_uint32),
        ("stale_code", ctypes.c_int32),
        ("enumerate_at_init", ctypes.c_uint32),
        ("references", ctypes.c_uint32),
        ("sessions", ctypes.c_uint32),
        ("cpu_ns", ctypes.c_uint64),
        ("calls", ctypes.c_uint64),
        ("driver", ctypes.c_char * 80),
        ("faults", Faults),
        ("gpus", GpuEntry * MAX_GPUS),
    )
