"""What NVML's return codes mean to a meter, and in words for people (nvml.h, nvmlReturn_t)."""

from __future__ import annotations

from typing import Final

UNINITIALIZED: Final = 1
INVALID_ARGUMENT: Final = 2
NOT_SUPPORTED: Final = 3
NO_PERMISSION: Final = 4
NOT_FOUND: Final = 6
DRIVER_NOT_LOADED: Final = 9
LIBRARY_NOT_FOUND: Final = 12
FUNCTION_NOT_FOUND: Final = 13
GPU_IS_LOST: Final = 15
RESET_REQUIRED: Final = 16
OPERATING_SYSTEM: Final = 17
LIB_RM_VERSION_MISMATCH: Final = 18
ARGUMENT_VERSION_MISMATCH: Final = 25
DEPRECATED: Final = 26
GPU_NOT_FOUND: Final = 28

UNSUPPORTED: Final = frozenset({NOT_SUPPORTED, FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH, DEPRECATED})
"""This board or driver does not have it, and will not until the driver changes."""

UNKNOWN_TO_DRIVER: Final = UNSUPPORTED | {INVALID_ARGUMENT, NOT_FOUND}
"""The same, from a call that never worked: older drivers answer "invalid argument" to a field id that they do not know."""

SESSION_GONE: Final = frozenset({UNINITIALIZED, DRIVER_NOT_LOADED, LIB_RM_VERSION_MISMATCH})
"""The driver went away under us. Nothing answers until NVML is shut down and initialised again."""

BOARD_GONE: Final = SESSION_GONE | {GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND}

HANDLE_GONE: Final = BOARD_GONE | {INVALID_ARGUMENT, NOT_FOUND}
"""The same, from a call that worked on this handle before: what it refers to is not there any more."""

_SENTENCES: Final = {
    UNINITIALIZED: "the NVIDIA driver was unloaded or reloaded",
    INVALID_ARGUMENT: "NVML does not know the GPU any more",
    NO_PERMISSION: "no permission to ask the NVIDIA driver: run as a user who may open /dev/nvidiactl and /dev/nvidia*,"
    " in a container with NVIDIA_VISIBLE_DEVICES=all and NVIDIA_DRIVER_CAPABILITIES=utility",
    NOT_FOUND: "NVML does not find the GPU any more",
    DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded: load it with modprobe nvidia, or see in dmesg why it does not load",
    LIBRARY_NOT_FOUND: "the NVIDIA library libnvidia-ml.so.1 was not found: install the NVIDIA driver,"
    " or give the container NVIDIA_DRIVER_CAPABILITIES=utility",
    GPU_IS_LOST: "the GPU is lost (fallen off the bus, or its power failed): look for Xid messages in dmesg; it needs a reset or a reboot",
    RESET_REQUIRED: "the GPU needs a reset before it can be used again: nvidia-smi --gpu-reset, or a reboot",
    OPERATING_SYSTEM: "the operating system or a container's device rules (cgroups) block access to the GPU",
    LIB_RM_VERSION_MISMATCH: "the NVIDIA library and the loaded driver are of different versions: reload the driver or reboot",
    GPU_NOT_FOUND: "NVML finds no such GPU any more",
}


def code_of(error: Exception) -> int:
    """The return code in the binding's NVMLError."""
    code: int = error.value  # type: ignore[attr-defined]
    return code


def sentence(error: Exception) -> str:
    """The binding's NVMLError in one sentence without a line break."""
    code = code_of(error)
    return _SENTENCES.get(code) or f"NVML answers error {code} ({' '.join(str(error).split())})"
