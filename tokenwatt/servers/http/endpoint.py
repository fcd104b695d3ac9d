"""One server's address: from a path to its answer, with our key, and with words for a status that is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tokenwatt import __version__
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.http.connection import Answer, Connection
from tokenwatt.servers.http.credentials import Trust, api_key
from tokenwatt.servers.target import ServerTarget

BODY_LIMIT_BYTES: Final = 8 * 2**20

_OPENINGS_MAX: Final = 256
_NETLOC: Final = re.compile(r"[A-Za-z0-9.\-_:\[\]]+")
_PATH_SAFE: Final = "/%:@!$&'()*+,;=?[]~"


class Endpoint:
    """Where one server is asked. Redirects are never followed: what they lead to is not the server that the settings name.

    ``forbidden``: paths that are never asked, each with the reason. Every request passes here, so none can slip through.
    """

    def __init__(self, target: ServerTarget) -> None:
        parts = urlsplit(target.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _NETLOC.fullmatch(parts.netloc):
            raise ValueError(f"{target.url} is no http or https url")
        if parts.query or parts.fragment:
            raise ValueError(f"{target.url} may hold a path, but no query and no fragment")
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.connection = Connection(parts.hostname, self.port, max_body_bytes=BODY_LIMIT_BYTES, namespace=target.namespace)
        self._prefix = quote(parts.path.rstrip("/"), safe=_PATH_SAFE)
        self._host = parts.netloc
        self.forbidden: Mapping[str, str] = {}
        self._openings: dict[str, str] = {}
        self._trust = Trust(target) if parts.scheme == "https" else None
        self._key = api_key(target.api_key_file) if target.api_key_file else None

    def get(self, path: str, *, accept: str, limit_s: float, kept_only: bool = False) -> Answer:
        """The answer to a GET of ``path`` below the url, whatever its status. With ``kept_only`` over no new connection.

        Raises:
            Unusable: there is none, the path is forbidden, or a file of the settings cannot be used.
        """
        if (why := self.forbids(path)) is not None:
            raise Unusable(f"{self._prefix}{path.partition('?')[0]} is not asked: {why}")
        authorization = f"Authorization: Bearer {self._key.get()}\r\n" if self._key else ""
        request = f"{self._opening(path, accept)}{authorization}\r\n".encode("ascii")
        tls = self._trust.context() if self._trust else None
        return self.connection.get(request, limit_s=limit_s, tls=tls, kept_only=kept_only)

    def forbids(self, path: str) -> str | None:
        """Why a path is never asked. None: it may be."""
        if not self.forbidden:
            return None
        bare, _, query = path.partition("?")
        bare = unquote(bare).rstrip("/")  # with a slash at the end, many servers take it for the same path
        for forbidden, why in self.forbidden.items():
            at, _, conditions = forbidden.partition("?")
            if bare == at and (not conditions or _all_hold(conditions, parse_qsl(query, keep_blank_values=True))):
                return why
        return None

    def _opening(self, path: str, accept: str) -> str:
        """A request but for the key. There are some ten of them a server, more where it has many models, and each is made once."""
        opening = self._openings.get(path)
        if opening is None:
            if len(self._openings) >= _OPENINGS_MAX:  # a router may name other models each time
                self._openings.clear()
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
            raise Unusable(f"HTTP {answer.status} for {self._prefix}{path}{self.advice(answer.status)}")
        if answer.encoding.lower() not in ("", "identity"):
            raise Unusable(f"{self._prefix}{path} is compressed, which was not asked for")

    def advice(self, status: int) -> str:
        """What to do about a status that is none of a page, as the end of a sentence; empty where nothing is known."""
        if status in (401, 403):
            return ": the key in api_key_file is not accepted" if self._key else ": it wants a key, give api_key_file"
        if 300 <= status < 400:
            return ": a redirect, and they are not followed; give the url that it leads to"
        if status == 404:
            return ": there are no metrics; give metrics_path, or the url of the server itself"
        return ""


def _all_hold(conditions: str, parameters: list[tuple[str, str]]) -> bool:
    """Whether a query is one that a forbidden path means: ``model=`` is there, ``autoload!=false`` is there with another value, or not."""
    for condition in conditions.split("&"):
        name, _, value = condition.partition("=")
        given = [v for n, v in parameters if n == name.rstrip("!")]
        if (set(given) == {value}) if name.endswith("!") else not given:
            return False
    return True
