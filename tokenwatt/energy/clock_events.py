"""The reasons NVML gives for clocks below what was asked for (nvml.h, nvmlClocksEventReason*), by bit, with the names we publish."""

from typing import Final

CLOCK_EVENTS: Final[dict[int, str]] = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}


def clock_event_names(bits: int) -> frozenset[str]:
    """The names of the bits set. Bits we have no name for are left out."""
    return frozenset(name for bit, name in CLOCK_EVENTS.items() if bits & bit)
