"""What listens in our own network namespace, asked of the kernel over netlink: a twentieth of what it takes to read /proc/net/tcp.

It walks through the listening sockets alone. Without privileges, as ``ss`` does it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tokenwatt.procfs.sockets import ListenSocket

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_ERROR: Final = 2
_DONE: Final = 3
_ONLY_LISTEN: Final = 1 << 10
_LIMIT_S: Final = 0.5
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBBI48x")
_PORT: Final = struct.Struct(">H")
_OWNER: Final = struct.Struct("=II")
_OWNER_AT: Final = 64


def listening_here(known: Mapping[int, ListenSocket]) -> dict[int, ListenSocket]:
    """All sockets that listen on a TCP port in the network namespace of this thread, by inode. Those in ``known`` are taken from there.

    Raises:
        OSError: the kernel does not tell; ``procfs.listening`` does.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_LIMIT_S)
        return _dump(kernel, socket.AF_INET, known) | _dump(kernel, socket.AF_INET6, known)


def _dump(kernel: socket.socket, family: int, known: Mapping[int, ListenSocket]) -> dict[int, ListenSocket]:
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ONLY_LISTEN)
    kernel.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, family, 0) + request)
    found: dict[int, ListenSocket] = {}
    while True:
        data = kernel.recv(65536)
        at = 0
        while at < len(data):
            length, type_, _, _, _ = _HEADER.unpack_from(data, at)
            if type_ == _DONE:
                return found
            if type_ == _ERROR or length < _HEADER.size:
                raise OSError("the kernel does not list its sockets")
            uid, inode = _OWNER.unpack_from(data, at + _HEADER.size + _OWNER_AT)
            found[inode] = known.get(inode) or _socket(data, at + _HEADER.size, family, uid, inode)
            at += (length + 3) & ~3


def _socket(data: bytes, at: int, family: int, uid: int, inode: int) -> ListenSocket:
    """``struct inet_diag_msg``: four bytes, the two ports, the two addresses, and at its end the user and the inode."""
    (port,) = _PORT.unpack_from(data, at + 4)
    address: IPv4Address | IPv6Address
    if family == socket.AF_INET:
        address = IPv4Address(data[at + 8 : at + 12])
    else:
        full = IPv6Address(data[at + 8 : at + 24])
        address = full.ipv4_mapped or full
    return ListenSocket(address, inode, uid, port)
