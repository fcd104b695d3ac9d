"""Whether anybody listens at a url of this host, and which process: for servers that are never asked, only reported for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from queue import SimpleQueue
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from tokenwatt import procfs
from tokenwatt.procfs import ListenSocket, PortHolder

LOOK_NS: Final = 5 * 10**9
"""How often a process known is checked, and an empty port looked at."""
SEARCH_NS: Final = 60 * 10**9
"""How often the process behind the same sockets is searched, which looks through every process; and where a url leads."""

_Address = IPv4Address | IPv6Address

State = Literal["unknown", "here", "away", "elsewhere"]
"""Not looked yet, or the process known is gone and who is there now is being looked up; somebody listens; nobody does; on another host."""


class Seen(NamedTuple):
    """What was seen last. ``holder`` None while somebody is here: rights or a namespace hide who."""

    state: State
    holder: PortHolder | None = None


class Lookouts:
    """Looks in a thread of its own, which sleeps while nobody asks: a search takes 10 ms, a name to be resolved seconds."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[Presence | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pushed-listeners", daemon=True)

    def ask(self, presence: Presence) -> None:
        """Look soon. For one thread."""
        if self._thread.ident is None:
            self._thread.start()
        self._asked.put(presence)

    def close(self) -> None:
        """End the thread, after what it looks at; a name that is being resolved is not waited for. Safe to call unstarted."""
        self._asked.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout=0.5)

    def _run(self) -> None:
        while (presence := self._asked.get()) is not None:
            presence.look()


class Presence:
    """Follows who listens at one url. ``seen`` belongs to one thread and is cheap; ``look`` runs in the thread of ``lookouts``."""

    def __init__(self, url: str, lookouts: Lookouts) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._lookouts = lookouts
        self._seen = Seen("unknown")
        self._asked = False
        self._next_ns: int | None = None
        self._searched: tuple[ListenSocket, ...] = ()
        self._searched_ns = 0

    def seen(self, now_ns: int) -> Seen:
        """What is known now: a few microseconds each 5 s, and nothing between."""
        if not self._asked and (self._next_ns is None or now_ns >= self._next_ns):
            holder = self._seen.holder
            if holder is not None and holder.holds():
                self._next_ns = now_ns + LOOK_NS
            else:
                if holder is not None:
                    self._seen, self._searched = Seen("unknown"), ()
                self._next_ns = now_ns + (SEARCH_NS if self._seen.state == "elsewhere" else LOOK_NS)
                self._asked = True
                self._lookouts.ask(self)
        return self._seen

    def look(self) -> None:
        """Look, and search if it may bring anything new."""
        addresses = tuple(_addresses_here(self._host, self._port))
        sockets = tuple(s for s in procfs.listen_sockets(self._port) if any(_takes(s, a) for a in addresses))
        if not addresses:
            self._seen = Seen("elsewhere")
        elif not sockets:
            self._seen = Seen("away")
        else:
            self._seen = Seen("here", self._search(addresses, sockets))
        self._asked = False

    def _search(self, addresses: tuple[_Address, ...], sockets: tuple[ListenSocket, ...]) -> PortHolder | None:
        # What hid the process of a socket (rights, a namespace) rarely changes: the same sockets are searched once a minute.
        now_ns = time.monotonic_ns()
        if sockets == self._searched and now_ns - self._searched_ns < SEARCH_NS:
            return None
        self._searched, self._searched_ns = sockets, now_ns
        holders = (procfs.port_holder(self._port, address=str(address)) for address in addresses)
        return next((holder for holder in holders if holder is not None), None)


def _addresses_here(host: str, port: int) -> Iterator[_Address]:
    """The addresses of a host that are this machine's. Sends nothing but what resolves the name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return
    for family, kind, protocol, _, address in found:
        ip = ip_address(str(address[0]).partition("%")[0])
        if ip.is_unspecified:  # as a server's own settings have it: all addresses of this machine
            yield ip_address("127.0.0.1" if ip.version == 4 else "::1")
            continue
        if ip.is_loopback:
            yield ip
            continue
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # of a datagram socket: only chooses a route, and to oneself the source is the destination
                if probe.getsockname()[0] == address[0]:
                    yield ip
        except OSError:
            continue


def _takes(listening: ListenSocket, address: _Address) -> bool:
    bound = getattr(listening.address, "ipv4_mapped", None) or listening.address
    # A socket bound to "::" takes IPv4 as well, unless it was told not to, which cannot be seen.
    return bound == address or bound.is_unspecified
