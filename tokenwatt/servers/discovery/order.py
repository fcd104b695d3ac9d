"""Which of a process's sockets may be asked, and in which order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final

from tokenwatt.servers.discovery.listeners import Listening

PORTS_MAX: Final = 32
"""Of one process. Who listens on more is not a server of models on each of them."""

_PORT_OPTION: Final = re.compile(r"-{1,2}(?:p|[a-z_-]*port)(?:=(\d+))?", re.IGNORECASE)
_INNER_PORT: Final = re.compile(r"master|dist|nccl|rpc|zmq|side|kv|base|debug|bootstrap|tcp|handshake|init", re.IGNORECASE)
_TORCH_PORT: Final = 29500
"""Where the ranks of a training job meet, unless they are told otherwise (torch: distributed/run.py)."""
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def in_order(sockets: Iterable[Listening], ephemeral: range, may_be_rank: Callable[[], bool]) -> list[Listening]:
    """Of all that one process listens on: first what its command line names, then the most likely ones. Of others than Python, where the
    command line names one, that alone.

    ``ephemeral``: the ports that the kernel chooses. Ranks of distributed work talk over such ports, and a stranger could disturb them:
    there, besides programs that are known to serve, only a Python is asked that cannot be one (``may_be_rank``, asked if it matters).
    """
    by_port: dict[int, Listening] = {}
    for each in sockets:
        # Two sockets of one port (IPv4 and IPv6) are one server.
        if each.socket.port not in by_port or each.socket.address.version == 4:
            by_port[each.socket.port] = each
    if not by_port:
        return []
    program, words = next((e.candidate.program, e.candidate.process.words) for e in by_port.values())
    python = program.standing == "python"
    if python:
        by_port.pop(_TORCH_PORT, None)
    own, inner = named_ports(words)
    named = [by_port[port] for port in sorted(by_port.keys() & own)]
    if named and not python:
        return named
    likely = sorted(by_port.keys() - own - inner, key=lambda port: (port in ephemeral, port not in program.ports, port))
    if program.standing != "serves":
        likely = [port for port in likely if port != _TORCH_PORT]
        if any(port in ephemeral for port in likely) and (not python or may_be_rank()):
            likely = [port for port in likely if port not in ephemeral]
    return (named + [by_port[port] for port in likely])[:PORTS_MAX]


def named_ports(words: Sequence[str]) -> tuple[set[int], set[int]]:
    """The ports that a command line names: for clients (``--port 8000``, ``-p 8000``, ``--metrics-port=8002``), and for other ranks."""
    own: set[int] = set()
    inner: set[int] = set()
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        match = _PORT_OPTION.fullmatch(word)
        value = (match[1] or following) if match else ""
        if value.isascii() and value.isdigit():
            (inner if _INNER_PORT.search(word) else own).add(int(value[:6]))
    return own, inner


def ephemeral_ports() -> range:
    """The ports that the kernel chooses for who does not care which."""
    try:
        low, high = map(int, _RANGE.read_text().split())
    except (OSError, ValueError):
        low, high = 32768, 60999  # the kernel's default
    return range(low, high + 1)
