"""Servers that put their model away while nobody asks for it: to look at them must neither wake them nor keep them awake.

llama-server sleeps ``--sleep-idle-seconds`` after its last task. To read its page was such a task (ggml-org/llama.cpp#20227, #23096) until
#27376, which is of 2026-08-19; b10423 is of a week before, b10760 of two weeks after. Where an older one may sleep, its page is left alone
while it does nothing, long enough for it to fall asleep. That it does nothing is seen by the CPU time that it takes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tokenwatt import procfs
from tokenwatt.servers.asking import Asker, field
from tokenwatt.servers.engines.description import Engine
from tokenwatt.servers.errors import Unusable
from tokenwatt.types import Listener

_OPTION: Final = "--sleep-idle-seconds"
_LEAVES_IT_ASLEEP: Final = 10760
_BUILD: Final = re.compile(r"b?(\d{1,9})(?:-|$)")
_WORK_NS: Final = 10_000_000
"""More CPU time than that between two looks is a request. To say that it does not sleep takes 1 ms."""
_PROCESS_CLOCK: Final = 2  # of all threads of a process: clock_getcpuclockid(3)


def says_asleep(ask: Asker, engine: Engine) -> bool:
    """Whether a server says that it sleeps.

    Raises:
        Unusable: it does not say. Whoever may not know whether it sleeps may not risk to wake it.
    """
    for answer in engine.asleep:
        status, said = ask.json(answer.path)
        if status not in (200, 404):  # 404: it is older than its sleep
            raise Unusable(f"HTTP {status} for {answer.path}, which tells whether it sleeps{ask.endpoint.advice(status)}")
        if field(said, answer.keys) is True:
            return True
    return False


@dataclass(slots=True)
class Rest:
    """How long the page of a server is left alone while it does nothing."""

    listener: Listener
    length_ns: int
    read_ns: int = 0
    """When the page was read last."""
    cpu_ns: int | None = None
    """The CPU time that its process had taken at the last look."""

    def begin(self, now_ns: int) -> None:
        """The page was read."""
        self.read_ns, self.cpu_ns = now_ns, cpu_time_ns(self.listener.pid)

    def lasts(self, now_ns: int) -> bool:
        """Whether nothing can have moved, and the page is to be left alone still."""
        before_ns, self.cpu_ns = self.cpu_ns, cpu_time_ns(self.listener.pid)
        if before_ns is None or self.cpu_ns is None:
            return False
        return self.cpu_ns - before_ns < _WORK_NS and now_ns - self.read_ns < self.length_ns


def rest_of(listener: Listener, version: str) -> Rest | None:
    """The rest that a server needs to fall asleep. None: it never sleeps, or to read its page does not keep it awake."""
    seconds = 0 if leaves_asleep(version) else sleeps_after_s(procfs.command_line(listener.pid))
    return Rest(listener, (seconds + 1) * 10**9) if seconds else None


def leaves_asleep(version: str) -> bool:
    """Whether to read the page of a llama-server of this version neither wakes it nor keeps it awake."""
    build = _BUILD.match(version)
    return build is not None and int(build[1]) >= _LEAVES_IT_ASLEEP


def sleeps_after_s(words: Sequence[str]) -> int:
    """After how long a llama-server with this command line falls asleep. 0: never."""
    values = [b for a, b in pairwise(words) if a == _OPTION] + [w.partition("=")[2] for w in words if w.startswith(f"{_OPTION}=")]
    return int(values[-1]) if values and values[-1].isdigit() and len(values[-1]) < 8 else 0


def cpu_time_ns(pid: int) -> int | None:
    """The CPU time that a process has taken so far. None: there is no such process."""
    try:
        return time.clock_gettime_ns(~pid << 3 | _PROCESS_CLOCK)
    except OSError:
        return None
