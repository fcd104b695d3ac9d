"""Where the proxy listens, whom it asks, whom it tells."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from tokenwatt.settings.addresses import server_url, split_address, url_port
from tokenwatt.settings.values import shown


class Endpoint(NamedTuple):
    """A host and port to connect to."""

    host: str
    port: int
    tls: bool
    host_header: str


def endpoint(url: str) -> Endpoint:
    """Of a URL that was read here."""
    parts = urlsplit(url)
    return Endpoint(parts.hostname or "", url_port(url), parts.scheme == "https", parts.netloc)


def upstream_url(value: str) -> str:
    """The server that is metered: scheme, host and port. Raises ValueError with words for people, as ``tokenwatt.settings.addresses``."""
    url = server_url(value)
    if urlsplit(url).path:
        raise ValueError(f"{shown(value)} has a path; write only http://host:port, since the paths of requests are passed on as they are")
    return url


def same_place(listen: str, url: str) -> bool:
    """Whether ``url`` would lead back to where we listen, as far as the texts tell."""
    host, port = split_address(listen)
    there = endpoint(url)
    loopback = {"localhost", "127.0.0.1", "::1"}
    wildcard = host in ("0.0.0.0", "::") and there.host in loopback
    return port == there.port and (host == there.host or {host, there.host} <= loopback or wildcard)
