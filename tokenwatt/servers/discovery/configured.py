"""Which sockets belong to servers that the settings name: they are not found a second time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit

from tokenwatt.procfs import Address, Process
from tokenwatt.servers.target import ServerTarget

_AGAIN_NS: Final = 60 * 10**9

_End = tuple[Address, int]


class Configured:
    """The addresses and ports of the settings' servers. Names are resolved in a short-lived thread: that may take seconds."""

    def __init__(self, targets: Sequence[ServerTarget]) -> None:
        parts = [urlsplit(t.url) for t in targets if t.namespace is None]
        self._hosts = [(p.hostname or "", p.port or (443 if p.scheme == "https" else 80)) for p in parts]
        self._names = [(host, port) for host, port in self._hosts if _literal(host) is None]
        self._literal = {(a, port) for host, port in self._hosts if (a := _literal(host)) is not None}
        self._resolved: frozenset[_End] = frozenset()
        self._done = threading.Event()
        self._begun_ns: int | None = None
        if not self._names:
            self._done.set()

    def resolve(self) -> bool:
        """Resolve the names if it is time to. Whether they were resolved once."""
        now_ns = time.monotonic_ns()
        if self._names and (self._begun_ns is None or (self._done.is_set() and now_ns - self._begun_ns >= _AGAIN_NS)):
            self._begun_ns = now_ns
            threading.Thread(target=self._resolve, name="resolve-servers", daemon=True).start()
        return self._done.is_set()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._hosts)

    def covers(self, served: Iterable[Address], port: int, forwarders: Iterable[Process]) -> bool:
        """Whether one of these addresses and ports is that of a server of the settings, also by way of a port that Docker forwards."""
        ends = self._literal | self._resolved
        if not ends:
            return False
        ends |= {there for each in forwarders if (f := _forwards(each)) for here, there in [f] if any(_reaches(e, here) for e in ends)}
        mine = [(address, port) for address in served]
        return any(_reaches(end, own) for end in ends for own in mine)

    def _resolve(self) -> None:
        found: set[_End] = set()
        for host, port in self._names:
            try:
                entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found.update((ip_address(str(entry[4][0]).partition("%")[0]), port) for entry in entries)
            except (OSError, UnicodeError):
                found.update(end for end in self._resolved if end[1] == port)
        self._resolved = frozenset(found)
        self._done.set()


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _reaches(asked: _End, own: _End) -> bool:
    """Whether who asks one end comes to the other. Any loopback address is ours, and an unspecified one means all of ours."""
    (address, port), (other, other_port) = asked, own
    if port != other_port:
        return False
    here = address.is_loopback or address.is_unspecified
    return address == other or other.is_unspecified or (here and other.is_loopback and other.version == address.version)


def _forwards(forwarder: Process) -> tuple[_End, _End] | None:
    """``docker-proxy -proto tcp -host-ip A -host-port P -container-ip B -container-port Q`` (moby: cmd/docker-proxy/main_linux.go)."""
    options = {a.lstrip("-"): b for a, b in pairwise(forwarder.words) if a.startswith("-")}
    try:
        here = ip_address(options["host-ip"]), int(options["host-port"])
        there = ip_address(options["container-ip"]), int(options["container-port"])
    except (KeyError, ValueError):
        return None
    return (here, there) if options.get("proto", "tcp") == "tcp" else None
