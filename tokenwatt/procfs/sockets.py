"""A network namespace's tables: what listens in it, what is connected, and its own addresses.

``net`` is a directory of tables: ``/proc/net`` for our own namespace, ``/proc/PID/net`` for the one of a process.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple

from tokenwatt.procfs.processes import PROC, read

Address = IPv4Address | IPv6Address

_LISTEN: Final = "0A"  # TCP_LISTEN, include/net/tcp_states.h
_ROWS_MAX: Final = 65536
_LOCAL: Final = re.compile(rb"\|-- ([0-9.]+)\n +/32 host LOCAL")
_IN_USE: Final = re.compile(rb"^TCP6?: inuse (\d+)", re.MULTILINE)


class ListenSocket(NamedTuple):
    """A socket that listens: its inode tells it from every other socket alive."""

    address: Address
    inode: int
    uid: int
    port: int


def listen_sockets(port: int, *, net: Path = PROC / "net") -> tuple[ListenSocket, ...]:
    """The sockets that listen on a TCP port."""
    return tuple(s for s in listening(net=net) if s.port == port)


def listening(*, net: Path = PROC / "net") -> tuple[ListenSocket, ...]:
    """All sockets that listen on a TCP port. Milliseconds: the kernel walks through a table that is sized for its memory, not its use."""
    return tuple(s for table in ("tcp", "tcp6") for s in _listening(net / table))


def census(*, net: Path = PROC / "net") -> tuple[int, ...] | None:
    """How many TCP sockets there are. While it stays the same, hardly anybody began to listen. A hundredth of the cost of ``listening``."""
    contents = (read(f"{net}/sockstat"), read(f"{net}/sockstat6"))
    counts = tuple(int(n) for content in contents if content for n in _IN_USE.findall(content))
    return counts or None


def ends_in(here: tuple[str, int], there: tuple[str, int], *, net: Path) -> bool:
    """Whether the other end of our connection from ``here`` to ``there`` is in the namespace of ``net``.

    A container's address may be somebody else's in ours: each rootless one has the same.
    """
    ours, theirs = (_unmapped(ip_address(here[0])), here[1]), (_unmapped(ip_address(there[0])), there[1])
    # The kernel prints both ends in its own way: only rows with the right ports are worth to be understood.
    ports = f":{there[1]:04X}", f":{here[1]:04X}"
    return any(
        fields[1].endswith(ports[0]) and fields[2].endswith(ports[1]) and (_end(fields[1]), _end(fields[2])) == (theirs, ours)
        for table in ("tcp", "tcp6")
        for fields in _rows(net / table)
    )


def local_addresses(*, net: Path = PROC / "net") -> tuple[Address, ...]:
    """The addresses of a namespace but those of its loopback, IPv4 first. Addresses of one link (fe80::) are left out."""
    found: dict[Address, None] = {}
    for address in _LOCAL.findall(read(f"{net}/fib_trie") or b""):
        found[IPv4Address(address.decode())] = None
    for row in (read(f"{net}/if_inet6") or b"").split(b"\n"):
        if len(words := row.split()) == 6:
            found[IPv6Address(int(words[0], 16))] = None
    return tuple(a for a in found if not a.is_loopback and not a.is_link_local)


def _listening(table: Path) -> Iterator[ListenSocket]:
    for fields in _rows(table):
        # Documentation/networking/proc_net_tcp.rst: all listening sockets come first, so that a busy server's thousands of connections
        # need not be read.
        if fields[3] != _LISTEN:
            return
        address, port = _end(fields[1])
        yield ListenSocket(address, int(fields[9]), int(fields[7]), port)


def _rows(table: Path) -> Iterator[list[str]]:
    """"sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode ...", of the same document."""
    try:
        with table.open() as lines:
            next(lines, None)
            for _, line in zip(range(_ROWS_MAX), lines, strict=False):
                yield line.split()
    except OSError:
        return


def _end(words: str) -> tuple[Address, int]:
    """An address as the kernel prints it, and its port: 32-bit words, each in the byte order of this machine."""
    host, _, port = words.partition(":")
    packed = b"".join(int(host[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(host), 8))
    return _unmapped(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)), int(port, 16)


def _unmapped(address: Address) -> Address:
    return getattr(address, "ipv4_mapped", None) or address
