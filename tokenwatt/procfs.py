"""What /proc tells of processes: who listens on a port, who descends from whom, and whether a pid is still the same process.

Works without privileges. Links of file descriptors, readable for one's own processes or with CAP_SYS_PTRACE, prove who holds a socket;
where they cannot be read, the user id of the socket and the command lines tell. A process that ends while it is looked at is a process
that is not there: nothing here raises for it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from tokenwatt.types import Listener

PROC: Final = Path("/proc")

_LISTEN: Final = "0A"  # TCP_LISTEN, include/net/tcp_states.h
_PARENT: Final = 1  # fields of /proc/PID/stat after the command, from its third one on: state, ppid, ...
_START_TICKS: Final = 19


class ListenSocket(NamedTuple):
    """A socket that listens: its inode tells it from every other socket alive."""

    address: IPv4Address | IPv6Address
    inode: int
    uid: int


def listen_sockets(port: int, *, root: Path = PROC) -> tuple[ListenSocket, ...]:
    """The sockets that listen on a TCP port, in the network namespace of ``root``."""
    return tuple(s for table in ("tcp", "tcp6") for s in _listening(root / "net" / table, port))


class PortHolder(NamedTuple):
    """Who listens on a port, and how that was seen: ``link`` (/proc/PID/fd/N) names ``socket``. Without ``link`` a command line told."""

    listener: Listener
    link: str | None
    socket: str

    def holds(self) -> bool:
        """Whether it still is so: the same process, and the same socket where that can be seen. A few microseconds."""
        pid, ticks = self.listener
        root = Path(self.link).parents[2] if self.link else PROC
        return start_ticks(pid, root=root) == ticks and (self.link is None or _link(self.link) == self.socket)


def listener(port: int, *, address: str | None = None, root: Path = PROC) -> Listener | None:
    """The process that listens on a TCP port; of several that share the socket (a parent and its workers), the topmost.

    ``address``: of the server's end, where two servers share a port on different addresses. None: nobody, or it cannot be told who.
    """
    found = port_holder(port, address=address, root=root)
    return found.listener if found else None


def port_holder(port: int, *, address: str | None = None, root: Path = PROC) -> PortHolder | None:
    """As ``listener``, with what it takes to see later whether it still holds. Looks through all processes: some 10 ms."""
    sockets = listen_sockets(port, root=root)
    if address is not None:
        sockets = _bound_to(sockets, ip_address(address))
    if not sockets:
        return None
    links, hidden = _holders({s.inode for s in sockets}, root)
    pids = set(links) or _by_command_line(port, {s.uid for s in sockets}, hidden, root)
    pid = _topmost(pids, root)
    ticks = start_ticks(pid, root=root) if pid else None
    if pid is None or ticks is None:
        return None
    return PortHolder(Listener(pid, ticks), *links.get(pid, (None, "")))


def ancestors(pid: int, *, root: Path = PROC) -> tuple[int, ...]:
    """The process, its parent, and so on up to 1, as far as they can be seen. Empty: there is no such process."""
    line: list[int] = []
    while pid > 0 and pid not in line and (stat := _stat(pid, root)) is not None:
        line.append(pid)
        pid = int(stat[_PARENT])
    return tuple(line)


def start_ticks(pid: int, *, root: Path = PROC) -> int | None:
    """When the process started, in clock ticks since boot: with the pid, it names a process for good. None: there is no such process."""
    stat = _stat(pid, root)
    return int(stat[_START_TICKS]) if stat is not None else None


def _stat(pid: int, root: Path) -> list[bytes] | None:
    """The fields of /proc/PID/stat after the command, which may itself hold blanks and parentheses."""
    content = _read(f"{root}/{pid}/stat")
    fields = content.rpartition(b")")[2].split() if content else []
    # A dead process whose parent has not waited for it: it holds no sockets and runs nothing.
    return fields if len(fields) > _START_TICKS and fields[0] not in (b"Z", b"X") else None


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as f:
            return f.read()
    except OSError:
        return None


def _pids(root: Path) -> Iterator[int]:
    try:
        entries = os.listdir(root)
    except OSError:
        return
    yield from (int(e) for e in entries if e.isdigit())


# --- the table of sockets ----------------------------------------------------------------------------------------------------------------


def _listening(table: Path, port: int) -> Iterator[ListenSocket]:
    try:
        with table.open() as lines:
            next(lines, None)
            for line in lines:
                # "sl local rem st tx:rx tr:tm retrnsmt uid timeout inode ...", Documentation/networking/proc_net_tcp.rst, which also says
                # that all listening sockets come first: a busy server's thousands of connections need not be read.
                fields = line.split()
                if fields[3] != _LISTEN:
                    return
                host, _, at = fields[1].partition(":")
                if int(at, 16) == port:
                    yield ListenSocket(_address(host), int(fields[9]), int(fields[7]))
    except OSError:
        return


def _address(words: str) -> IPv4Address | IPv6Address:
    """An address as the kernel prints it: 32-bit words, each in the byte order of this machine."""
    packed = b"".join(int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8))
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _bound_to(sockets: Iterable[ListenSocket], wanted: IPv4Address | IPv6Address) -> tuple[ListenSocket, ...]:
    """Those that take connections to this address: bound to it, else to all addresses (the kernel prefers in this order too)."""
    wanted = getattr(wanted, "ipv4_mapped", None) or wanted
    exact = tuple(s for s in sockets if (getattr(s.address, "ipv4_mapped", None) or s.address) == wanted)
    return exact or tuple(s for s in sockets if s.address.is_unspecified)


# --- who holds a socket ------------------------------------------------------------------------------------------------------------------


def _holders(inodes: set[int], root: Path) -> tuple[dict[int, tuple[str, str]], set[int]]:
    """The processes that hold one of the sockets, each with the link that says so, and those that do not let us see what they hold."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    holders: dict[int, tuple[str, str]] = {}
    hidden: set[int] = set()
    for pid in _pids(root):
        try:
            if (link := _held(f"{root}/{pid}/fd", wanted)) is not None:
                holders[pid] = link
        except PermissionError:
            hidden.add(pid)
        except OSError:
            continue
    return holders, hidden


def _held(directory: str, wanted: set[str]) -> tuple[str, str] | None:
    for fd in os.listdir(directory):
        try:
            held = os.readlink(f"{directory}/{fd}")
        except FileNotFoundError:
            continue
        if held in wanted:
            return f"{directory}/{fd}", held
    return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _by_command_line(port: int, uids: set[int], candidates: Iterable[int], root: Path) -> set[int]:
    """Of the processes that hide what they hold: those of the socket's user whose command line names the port as their own."""
    named: set[int] = set()
    bound: set[int] = set()
    for pid in candidates:
        if _uid(pid, root) not in uids or not (content := _read(f"{root}/{pid}/cmdline")):
            continue
        words = content.decode(errors="replace").rstrip("\0").split("\0")
        if _is_option(words, port):
            named.add(pid)
        elif any(re.fullmatch(rf"[^/]*:{port}", word) for word in words):  # host:port to bind; a url is somebody's to talk to
            bound.add(pid)
    return named or bound


def _is_option(words: list[str], port: int) -> bool:
    return f"--port={port}" in words or any(a in ("--port", "-p") and b == str(port) for a, b in pairwise(words))


def _uid(pid: int, root: Path) -> int | None:
    try:
        return os.stat(f"{root}/{pid}").st_uid
    except OSError:
        return None


def _topmost(pids: set[int], root: Path) -> int | None:
    """The one that the others descend from; of unrelated ones (SO_REUSEPORT) the oldest, so that the answer stays the same."""
    tops = [pid for pid in pids if not pids & set(ancestors(pid, root=root)[1:])]
    return min(tops, key=lambda pid: (start_ticks(pid, root=root) or 0, pid), default=None)
