"""Addresses and URLs as people write them: where we listen, where servers are, where prices come from.

Readers raise ValueError with words for people, like those of ``tokenwatt.settings.values``. No message repeats a user, a password or a
query.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from tokenwatt.settings.values import shown, text

DEFAULT_LISTEN: Final = "127.0.0.1:28900"

_HOST_NAME: Final = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.)*[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.?")
_DEFAULT_PORT: Final = {"http": 80, "https": 443}


def listen_address(value: object) -> str:
    """Where to listen: ``host:port``, an IPv6 host in brackets. Port 0 lets the system choose."""
    if not isinstance(value, str) or value.isdigit():
        raise ValueError(f"{shown(value)} is not an address; write host:port, for example {DEFAULT_LISTEN}")
    host, colon, port = value.rpartition(":")
    if not colon or port.endswith("]"):
        raise ValueError(f"{shown(value)} has no port; write host:port, for example {DEFAULT_LISTEN}")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{shown(value)} has no port that exists; write host:port with a port of 0 to 65535")
    if not host:
        raise ValueError(f"{shown(value)} has no host; write 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} for every interface")
    if not _is_host(host):
        right = f"[{host}]:{port}" if _is_ip(host, 6) else f"host:port, for example {DEFAULT_LISTEN}"
        raise ValueError(f"{shown(value)} has no host that can be; write {right}")
    return value


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of an address that :func:`listen_address` returned."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def server_url(value: object) -> str:
    """The root of a server's HTTP endpoint, without a slash at its end."""
    parts = _http_url(value, "http://127.0.0.1:8000")
    if parts.query or parts.fragment:
        raise ValueError(f"{shown(value)} has a query; write the URL without ? and #")
    path = parts.path.rstrip("/")
    if path.endswith("/metrics"):
        raise ValueError(f"{shown(value)} is a page of the server; write the URL without /metrics (another page goes to metrics_path)")
    if path.endswith("/v1"):
        raise ValueError(f"{shown(value)} is the root of the server's API; write the URL without /v1")
    return f"{parts.scheme}://{parts.netloc}{path}"


def source_url(value: object) -> str:
    """Where a price or an intensity is read from. A query is allowed: it may hold a key, and is never shown."""
    return _http_url(value, "https://example.org/price.json").geturl()


def metrics_path(value: object) -> str:
    """The path of a server's metrics page."""
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value) or "?" in value or "#" in value:
        raise ValueError(f"{shown(value)} is not a path; write for example /metrics (without a query)")
    return value


def url_key(url: str) -> tuple[str, str, int, str]:
    """What two URLs of the same endpoint have in common, however they are written."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    return parts.scheme, "127.0.0.1" if host == "localhost" else host, url_port(url), parts.path


def url_port(url: str) -> int:
    """The port of a URL that was read here."""
    parts = urlsplit(url)
    return parts.port or _DEFAULT_PORT[parts.scheme]


def _http_url(value: object, example: str) -> SplitResult:
    written = text(value).strip()
    try:
        parts = urlsplit(written)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{shown(value)} is not a URL with a host and a port of 1 to 65535; write for example {example}") from None
    if parts.scheme not in _DEFAULT_PORT or "://" not in written:
        hint = f"http://{written}" if re.fullmatch(r"[A-Za-z0-9._-]+:[0-9]+", written) else f"for example {example}"
        raise ValueError(f"{shown(value)} is not an http or https URL; write {hint}")
    if "@" in parts.netloc:
        raise ValueError(f"{shown(value)} holds a user or a password; write the URL without it (a server's key goes to api_key_file)")
    bracketed = f"[{host}]" if host and ":" in host else host or ""
    if not _is_host(bracketed) or port == 0 or re.search(r"[^!-~]", written):
        raise ValueError(f"{shown(value)} is not a URL with a host and a port of 1 to 65535; write for example {example}")
    return parts


def _is_host(host: str) -> bool:
    if host.startswith("["):
        return host.endswith("]") and _is_ip(host[1:-1], 6)
    if re.fullmatch(r"[0-9.]+", host):
        return _is_ip(host, 4)
    return len(host) <= 253 and bool(_HOST_NAME.fullmatch(host))


def _is_ip(host: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(host).version == version
    except ValueError:
        return False
