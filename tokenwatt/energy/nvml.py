"""NVIDIA GPUs through nvidia-ml-py: the session with the library, and the boards in it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Condition, Lock
from time import monotonic_ns
from typing import Any, Final

from tokenwatt.energy import nvml_errors
from tokenwatt.energy.nvml_board import NvmlBoard
from tokenwatt.energy.source import SourceUnavailable
from tokenwatt.types import EnergyReading, Gpu, GpuState, Scope

_LET_GO_S: Final = 0.25
"""So long a restart of NVML waits for calls that are inside it. A call that takes longer is stuck, and then there is no restart."""


class _Gate:
    """Counts the calls inside NVML, so that the library is shut down only when there is none."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._condition = Condition(self._lock)  # the same lock: taken by itself it costs a tenth
        self._inside = 0
        self._closed = False

    def enter(self) -> bool:
        """One call more. False: NVML is being restarted, and there must be no call."""
        with self._lock:
            if not self._closed:
                self._inside += 1
            return not self._closed

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._closed:
                self._condition.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Let nobody in and wait until everybody is out. False: somebody stays, and the gate is open again."""
        with self._condition:
            self._closed = True
            self._closed = self._condition.wait_for(lambda: self._inside == 0, timeout_s)
            return self._closed

    def open(self) -> None:
        with self._condition:
            self._closed = False


class NvmlSource:
    """The NVIDIA GPUs of this node, an ``EnergySource``.

    ``open`` enumerates. It restarts NVML when the driver went away under it, and when a board that was there is missing: the library finds
    boards that came back only in a new session. The first restart for a missing board comes ``restart_after_s`` after it is missed, the
    next when it is gone twice as long, and so on, since a restart holds up the other boards for some milliseconds.
    """

    simulated = False

    def __init__(self, *, restart_after_s: float = 10.0) -> None:
        self._restart_after_ns = round(restart_after_s * 1e9)
        self._restart_wait_ns = self._restart_after_ns
        self._missed_since_ns: int | None = None
        self._nvml: Any = None
        self._lock = Lock()  # of open and close
        self._gate = _Gate()
        self._session = False
        self._references = 0  # nvmlInit less nvmlShutdown: only at 0 the library lets its session go
        self._absence = ""
        self._boards: dict[str, NvmlBoard] = {}
        self._known: set[str] = set()

    def open(self) -> Sequence[Gpu]:
        """Initialise NVML where needed and enumerate: the boards that answer now. One of before stays readable while its handle is good.

        Raises:
            SourceUnavailable: no library, no driver, no permission, library and driver of different versions, or no board.
        """
        with self._lock:
            nvml = self._nvml = self._nvml or _binding()
            if self._session and self._needs_restart():
                self._end_session()
            if not self._session:
                self._start_session()
            found, failure = self._enumerate(nvml)
            self._boards = {**self._boards, **found}
            self._known |= found.keys()
            self._absence = failure if not found else "the GPU is not among those that NVML finds"
            if not found:
                if not self._boards:
                    self._end_session()  # a GPU that comes is found in a new session only
                raise SourceUnavailable(failure)
            return [board.gpu for board in found.values()]

    def read(self, uuid: str, *, want_processes: bool) -> EnergyReading:
        """One board's energy and power. ``t_ns`` is the middle of the call that read the counter."""
        if not self._gate.enter():
            return EnergyReading(uuid, monotonic_ns(), error="NVML is being restarted")
        try:
            board = self._boards.get(uuid)
            if board is None:
                return EnergyReading(uuid, monotonic_ns(), error=self._absence, lost=True)
            return board.read(want_processes=want_processes)
        finally:
            self._gate.leave()

    def state(self, uuid: str) -> GpuState | None:
        """The board's other figures, each None where it could not be read. None: not one could."""
        if not self._gate.enter():
            return None
        try:
            board = self._boards.get(uuid)
            return None if board is None else board.state()
        finally:
            self._gate.leave()

    def close(self) -> None:
        """Shut NVML down. Where a call is stuck inside it, it is left to the end of the process, or to another ``close``."""
        if self._lock.acquire(timeout=_LET_GO_S):
            try:
                if self._session:
                    self._end_session()
            finally:
                self._lock.release()

    # -- the session

    def _start_session(self) -> None:
        self._let_go()
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self._absence = nvml_errors.sentence(error)
            raise SourceUnavailable(self._absence) from error
        self._references += 1
        self._session = True

    def _end_session(self) -> None:
        if not self._gate.close(_LET_GO_S):
            return
        self._let_go()
        self._boards = {}
        self._session = False
        self._gate.open()

    def _let_go(self) -> None:
        """Undo every nvmlInit: NVML counts them, and without this it would only hand out a dead session again."""
        with suppress(self._nvml.NVMLError):
            while self._references:
                self._nvml.nvmlShutdown()
                self._references -= 1

    def _needs_restart(self) -> bool:
        failures = [board.failure for board in self._boards.values()]
        if failures and all(code in nvml_errors.SESSION_GONE for code in failures):
            return True
        try:
            self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            return nvml_errors.code_of(error) in nvml_errors.SESSION_GONE
        return self._missed_long_enough(len(failures) < len(self._known) or any(code is not None for code in failures))

    def _missed_long_enough(self, missed: bool) -> bool:
        if not missed:
            self._missed_since_ns = None
            self._restart_wait_ns = self._restart_after_ns
            return False
        now_ns = monotonic_ns()
        if self._missed_since_ns is None:
            self._missed_since_ns = now_ns
        if now_ns - self._missed_since_ns < self._restart_wait_ns:
            return False
        self._restart_wait_ns = 2 * (now_ns - self._missed_since_ns)
        return True

    # -- the boards

    def _enumerate(self, nvml: Any) -> tuple[dict[str, NvmlBoard], str]:
        """The boards that answer, by UUID, and why there are none."""
        found: dict[str, NvmlBoard] = {}
        failure = "NVML finds no GPU on this node"
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            return found, nvml_errors.sentence(error)
        driver = _told(nvml, nvml.nvmlSystemGetDriverVersion) or ""
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(handle)
            except nvml.NVMLError as error:
                failure = f"no GPU answers, {count} there should be: {nvml_errors.sentence(error)}"
                continue
            found[uuid] = self._board(handle, uuid, index, driver)
        return found, failure

    def _board(self, handle: Any, uuid: str, index: int, driver: str) -> NvmlBoard:
        """The board behind a handle: the one of before, with what it has learned, where the handle is the same."""
        before = self._boards.get(uuid)
        gpu = _describe(self._nvml, handle, uuid, index, driver, before.gpu if before else None)
        if before is None or _address(before.handle) != _address(handle):
            return NvmlBoard(self._nvml, handle, gpu)
        before.gpu = gpu
        return before


def _binding() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise SourceUnavailable("the Python package nvidia-ml-py is not installed: pip install nvidia-ml-py") from error
    # The package named pynvml, up to version 11, has a module of the same name with other types and without newer calls.
    if not hasattr(pynvml, "_nvmlGetFunctionPointer"):
        raise SourceUnavailable("the module pynvml is not that of nvidia-ml-py: pip uninstall pynvml, then pip install nvidia-ml-py")
    return pynvml


def _describe(nvml: Any, handle: Any, uuid: str, index: int, driver: str, before: Gpu | None) -> Gpu:
    """What the board is. Where a call fails that worked before, its answer of then holds."""
    name = _told(nvml, nvml.nvmlDeviceGetName, handle)
    pci = _told(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    limits = _told(nvml, nvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
    fallback = before or Gpu(uuid, index, "", "", "", None)
    return Gpu(
        uuid,
        index,
        name or fallback.name,
        driver or fallback.driver,
        pci.busId if pci else fallback.pci_bus_id,
        limits[1] if limits else fallback.power_limit_max_mw,
        _scope(name or fallback.name),
    )


def _scope(name: str) -> Scope:
    """Grace Hopper's counter holds its CPU as well (measured by ml-energy/zeus, pull request 172)."""
    return "module" if "GH200" in name else "gpu"


def _told(nvml: Any, call: Callable[..., Any], *arguments: Any) -> Any | None:
    try:
        return call(*arguments)
    except (nvml.NVMLError, UnicodeDecodeError):
        return None


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
