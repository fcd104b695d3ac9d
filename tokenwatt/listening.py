"""A socket to listen on, or why not, in words."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

_REASONS: Final = {
    errno.EADDRINUSE: "another program listens there already",
    errno.EACCES: "this user may not use that port",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
}


class ListenError(Exception):
    """The address cannot be listened on: which one and why, in one sentence."""


def listen(host: str, port: int, *, backlog: int | None = None) -> socket.socket:
    """Listen there. Port 0 lets the system choose.

    Raises:
        ListenError: the address is taken, forbidden or not known here.
    """
    if not 0 <= port <= 65535:
        raise ListenError(f"Cannot listen on {host}:{port}: a port is a number from 0 to 65535.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # "::" alone means IPv4 as well, as everywhere on Linux.
        dual = family == socket.AF_INET6 and host == "::"
        return socket.create_server((host, port), family=family, dualstack_ipv6=dual, backlog=backlog)
    except socket.gaierror as e:
        raise ListenError(f"Cannot listen on {host}:{port}: {host!r} is no address of this machine ({e.strerror}).") from None
    except OSError as e:
        reason = _REASONS.get(e.errno or 0) or os.strerror(e.errno or 0)
        raise ListenError(f"Cannot listen on {host}:{port}: {reason}.") from None
