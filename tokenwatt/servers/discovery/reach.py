"""How a listening socket is reached: at which address, and in which network namespace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple

from tokenwatt.procfs import Address, ListenSocket

_LOOPBACK: Final[tuple[Address, ...]] = (ip_address("127.0.0.1"), ip_address("::1"))
_WAYS_MAX: Final = 4
_ROUTED_MAX: Final = 2


class Way(NamedTuple):
    """A url, and the network namespace that it holds in, None ours. ``enters``: by being in there, as against by way of the routes."""

    url: str
    namespace: Path | None
    enters: bool


def ways_here(socket: ListenSocket, others: Collection[ListenSocket], own: Iterable[Address]) -> tuple[Way, ...]:
    """To a socket in our own namespace, which has the addresses ``own`` but those of the loopback. In the order of trying."""
    addresses = [*_LOOPBACK, *own] if socket.address.is_unspecified else [socket.address]
    return tuple(Way(_url(a, socket.port), None, False) for a in addresses if takes(socket, a, others))[:_WAYS_MAX]


def ways_there(socket: ListenSocket, others: Collection[ListenSocket], own: Iterable[Address], namespace: Path) -> tuple[Way, ...]:
    """To a socket in another namespace (``/proc/PID/ns/net``): by way of the routes if that is possible, which takes no privilege."""
    routed = list(own)[:_ROUTED_MAX] if socket.address.is_unspecified else [socket.address] * (not socket.address.is_loopback)
    within = _LOOPBACK if socket.address.is_unspecified else [socket.address] * socket.address.is_loopback
    ways = [(a, False) for a in routed] + [(a, True) for a in within]
    return tuple(Way(_url(a, socket.port), namespace, enters) for a, enters in ways if takes(socket, a, others))[:_WAYS_MAX]


def takes(socket: ListenSocket, address: Address, others: Collection[ListenSocket]) -> bool:
    """Whether a connection to ``address`` comes to this socket, and not to another one on the same port."""
    fit = _fit(socket, address)
    # Of several on the same address (SO_REUSEPORT: workers that are one server), the first.
    return fit > 0 and all((_fit(o, address), -o.inode) <= (fit, -socket.inode) for o in others if o.port == socket.port)


def _fit(socket: ListenSocket, address: Address) -> int:
    """How well a socket fits an address. The kernel takes the best one; 0 is not at all."""
    if socket.address == address:
        return 3
    if not socket.address.is_unspecified:
        return 0
    # One bound to "::" takes IPv4 as well, unless it was told not to, which cannot be seen.
    return 2 if socket.address.version == address.version else int(isinstance(address, IPv4Address))


def served(socket: ListenSocket, own: Iterable[Address], *, here: bool) -> Iterator[Address]:
    """The addresses at which a socket takes connections, as they are in our namespace: another's loopback is none of them."""
    if not socket.address.is_unspecified:
        if here or not socket.address.is_loopback:
            yield socket.address
        return
    if here:
        yield from _LOOPBACK
    yield from (a for a in own if _fit(socket, a))


def _url(address: Address, port: int) -> str:
    return f"http://[{address}]:{port}" if isinstance(address, IPv6Address) else f"http://{address}:{port}"
