"""One server's address: from a path to its answer, with our key, and with words for a status that is none."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

from tokenwatt import __version__
from tokenwatt.servers.connection import Answer, Connection
from tokenwatt.servers.credentials import Trust, api_key
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.target import ServerTarget

BODY_LIMIT_BYTES: Final = 8 * 2**20

_NETLOC: Final = re.compile(r"[A-Za-z0-9.\-_:\[\]]+")
_PATH_SAFE: Final = "/%:@!$&'()*+,;=?[]~"


class Endpoint:
    """Where one server is asked. Redirects are never followed: what they lead to is not the server that the settings name."""

    def __init__(self, target: ServerTarget) -> None:
        parts = urlsplit(target.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _NETLOC.fullmatch(parts.netloc):
            raise ValueError(f"{target.url} is no http or https url")
        if parts.query or parts.fragment:
            raise ValueError(f"{target.url} may hold a path, but no query and no fragment")
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.connection = Connection(parts.hostname, self.port, max_body_bytes=BODY_LIMIT_BYTES)
        self._prefix = quote(parts.path.rstrip("/"), safe=_PATH_SAFE)
        self._host = parts.netloc
        self._openings: dict[str, str] = {}
        self._trust = Trust(target) if parts.scheme == "https" else None
        self._key = api_key(target.api_key_file) if target.api_key_file else None

    def get(self, path: str, *, accept: str, limit_s: float, kept_only: bool = False) -> Answer:
        """The answer to a GET of ``path`` below the url, whatever its status. With ``kept_only`` over no new connection.

        Raises:
            Unusable: there is none, or a file of the settings cannot be used.
        """
        authorization = f"Authorization: Bearer {self._key.get()}\r\n" if self._key else ""
        request = f"{self._opening(path, accept)}{authorization}\r\n".encode("ascii")
        tls = self._trust.context() if self._trust else None
        return self.connection.get(request, limit_s=limit_s, tls=tls, kept_only=kept_only)

    def _opening(self, path: str, accept: str) -> str:
        """A request but for the key. There are four of them a server, and each is made once."""
        opening = self._openings.get(path)
        if opening is None:
            opening = self._openings[path] = (
                f"GET {self._prefix}{quote(path, safe=_PATH_SAFE)} HTTP/1.1\r\nHost: {self._host}\r\n"
                f"User-Agent: tokenwatt/{__version__}\r\nAccept: {accept}\r\nAccept-Encoding: identity\r\n"
            )
        return opening

    def check(self, path: str, answer: Answer) -> None:
        """Refuse an answer that carries no page.

        Raises:
            Unusable: its status is not 200, or it is compressed.
        """
        if answer.status != 200:
            raise Unusable(f"HTTP {answer.status} for {self._prefix}{path}{self._advice(answer.status)}")
        if answer.encoding.lower() not in ("", "identity"):
            raise Unusable(f"{self._prefix}{path} is compressed, which was not asked for")

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            return ": the key in api_key_file is not accepted" if self._key else ": it wants a key, give api_key_file"
        if 300 <= status < 400:
            return ": a redirect, and they are not followed; give the url that it leads to"
        if status == 404:
            return ": there are no metrics; give metrics_path, or the url of the server itself"
        return ""
