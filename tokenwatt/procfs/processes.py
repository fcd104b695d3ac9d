"""Processes: their parents, starts and command lines, and the network that each of them sees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")

_PARENT: Final = 1  # fields of /proc/PID/stat after the command, from its third one on: state, ppid, ...
_START_TICKS: Final = 19
_COMMAND_LINE_BYTES: Final = 16 * 1024
"""What is read of one: the program and its options are at the beginning, and a process may have megabytes."""


class Process(NamedTuple):
    """A process at one look. ``command`` is the kernel's name of it, 15 bytes at most; ``words`` its command line, or the title it took."""

    pid: int
    parent: int
    start_ticks: int
    command: str
    words: tuple[str, ...]


def entries(*, root: Path = PROC) -> set[str]:
    """What is in /proc: the processes that may be seen, by their numbers, and other things."""
    try:
        return set(os.listdir(root))
    except OSError:
        return set()


def pids(*, root: Path = PROC) -> list[int]:
    """All processes that may be seen. Empty: none may."""
    return [int(e) for e in entries(root=root) if e.isdigit()]


def process(pid: int, *, root: Path = PROC) -> Process | None:
    """One process. None: there is none, or it may not be looked at."""
    content = _stat(pid, root)
    if content is None:
        return None
    command, fields = content
    return Process(pid, int(fields[_PARENT]), int(fields[_START_TICKS]), command.decode(errors="replace"), command_line(pid, root=root))


def command_line(pid: int, *, root: Path = PROC) -> tuple[str, ...]:
    """The words of its command line. Empty: a thread of the kernel, a dead process, or none that may be looked at."""
    content = read(f"{root}/{pid}/cmdline", _COMMAND_LINE_BYTES)
    return tuple(content.decode(errors="replace").rstrip("\0").split("\0")) if content else ()


def ancestors(pid: int, *, root: Path = PROC) -> tuple[int, ...]:
    """The process, its parent, and so on up to 1, as far as they can be seen. Empty: there is no such process."""
    line: list[int] = []
    while pid > 0 and pid not in line and (stat := _stat(pid, root)) is not None:
        line.append(pid)
        pid = int(stat[1][_PARENT])
    return tuple(line)


def start_ticks(pid: int, *, root: Path = PROC) -> int | None:
    """When the process started, in clock ticks since boot: with the pid, it names a process for good. None: there is no such process."""
    stat = _stat(pid, root)
    return int(stat[1][_START_TICKS]) if stat is not None else None


def user(pid: int, *, root: Path = PROC) -> int | None:
    """The user id that it runs as."""
    try:
        return os.stat(f"{root}/{pid}").st_uid
    except OSError:
        return None


def net_namespace(directory: Path) -> int | None:
    """What tells the network namespace of a directory of tables (``/proc/PID/net``) from all others alive. None: it is not to be seen.

    The number of one of its files: each namespace has a file of its own. The link ``ns/net`` says the same, but only to who may trace
    the process.
    """
    try:
        return os.stat(directory / "tcp").st_ino
    except OSError:
        return None


def _stat(pid: int, root: Path) -> tuple[bytes, list[bytes]] | None:
    """Of /proc/PID/stat the command, which may itself hold blanks and parentheses, and the fields after it."""
    content = read(f"{root}/{pid}/stat")
    head, _, tail = content.rpartition(b")") if content else (b"", b"", b"")
    fields = tail.split()
    # A dead process whose parent has not waited for it: it holds no sockets and runs nothing.
    return (head.partition(b"(")[2], fields) if len(fields) > _START_TICKS and fields[0] not in (b"Z", b"X") else None


def read(path: str, limit: int = -1) -> bytes | None:
    """A file's content, its first ``limit`` bytes where that is given. None: it is not there, or not for us."""
    try:
        with open(path, "rb", buffering=0) as f:
            return f.read(limit)
    except OSError:
        return None
