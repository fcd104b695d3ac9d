"""Who holds a listening socket."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Iterator
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tokenwatt.procfs.processes import PROC, ancestors, command_line, net_namespace, pids, start_ticks, user
from tokenwatt.procfs.sockets import Address, ListenSocket, listen_sockets
from tokenwatt.types import Listener


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


def listener(port: int, *, address: str | None = None, root: Path = PROC, net: Path | None = None) -> Listener | None:
    """The process that listens on a TCP port; of several that share the socket (a parent and its workers), the topmost.

    ``address``: of the server's end, where two servers share a port on different addresses. ``net``: the tables of the network namespace
    (``/proc/PID/net``), where it is not ours. None: nobody, or it cannot be told who.
    """
    found = port_holder(port, address=address, root=root, net=net)
    return found.listener if found else None


def port_holder(port: int, *, address: str | None = None, root: Path = PROC, net: Path | None = None) -> PortHolder | None:
    """As ``listener``, with what it takes to see later whether it still holds. Looks through all processes: some 10 ms."""
    net = net or root / "net"
    sockets = listen_sockets(port, net=net)
    if address is not None:
        sockets = _bound_to(sockets, ip_address(address))
    if not sockets:
        return None
    links, hidden = holders({s.inode for s in sockets}, pids(root=root), root=root)
    found = set(links) or _by_command_line(port, {s.uid for s in sockets}, hidden, root, net)
    pid = topmost(found, root)
    ticks = start_ticks(pid, root=root) if pid else None
    if pid is None or ticks is None:
        return None
    return PortHolder(Listener(pid, ticks), *links.get(pid, (None, "")))


def holders(inodes: Iterable[int], among: Iterable[int], *, root: Path = PROC) -> tuple[dict[int, tuple[str, str]], set[int]]:
    """The processes that hold one of the sockets, each with the link that says so, and those that do not let us see what they hold."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found: dict[int, tuple[str, str]] = {}
    hidden: set[int] = set()
    for pid in among:
        try:
            if (link := next(_held(f"{root}/{pid}/fd", wanted), None)) is not None:
                found[pid] = link
        except PermissionError:
            hidden.add(pid)
        except OSError:
            continue
    return found, hidden


def names_port(words: Iterable[str], port: int) -> bool:
    """Whether a command line has an option that names the port as its own."""
    words = list(words)
    return f"--port={port}" in words or any(a in ("--port", "-p") and b == str(port) for a, b in pairwise(words))


def topmost(found: set[int], root: Path = PROC) -> int | None:
    """The one that the others descend from; of unrelated ones (SO_REUSEPORT) the oldest, so that the answer stays the same."""
    tops = [pid for pid in found if not found & set(ancestors(pid, root=root)[1:])]
    return min(tops, key=lambda pid: (start_ticks(pid, root=root) or 0, pid), default=None)


def sockets_held(pid: int, inodes: set[int], *, root: Path = PROC) -> dict[int, str]:
    """Of these sockets those that the process holds, each with its link.

    Raises:
        PermissionError: it does not let us see what it holds.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    try:
        return {wanted[held]: link for link, held in _held(f"{root}/{pid}/fd", wanted)}
    except PermissionError:
        raise
    except OSError:
        return {}


def _held(directory: str, wanted: Container[str]) -> Iterator[tuple[str, str]]:
    for fd in os.listdir(directory):
        try:
            held = os.readlink(f"{directory}/{fd}")
        except FileNotFoundError:
            continue
        if held in wanted:
            yield f"{directory}/{fd}", held


def _bound_to(sockets: Iterable[ListenSocket], wanted: Address) -> tuple[ListenSocket, ...]:
    """Those that take connections to this address: bound to it, else to all addresses (the kernel prefers in this order too)."""
    wanted = getattr(wanted, "ipv4_mapped", None) or wanted
    exact = tuple(s for s in sockets if s.address == wanted)
    return exact or tuple(s for s in sockets if s.address.is_unspecified)


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _by_command_line(port: int, uids: set[int], candidates: Iterable[int], root: Path, net: Path) -> set[int]:
    """Of the processes that hide what they hold: those of the socket's user and network whose command line names the port as their own."""
    named: set[int] = set()
    bound: set[int] = set()
    ours = net_namespace(net)
    for pid in candidates:
        if user(pid, root=root) not in uids or net_namespace(root / str(pid) / "net") not in (None, ours):
            continue
        words = command_line(pid, root=root)
        if names_port(words, port):
            named.add(pid)
        elif any(re.fullmatch(rf"[^/]*:{port}", word) for word in words):  # host:port to bind; a url is somebody's to talk to
            bound.add(pid)
    return named or bound
