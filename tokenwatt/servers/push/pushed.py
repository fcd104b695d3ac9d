"""Servers without counters of their own: what processes report that they made (``POST /api/v1/tokens``), as readings.

Two threads meet here: ``push`` is called by who answers HTTP, ``readings`` once a second by the writer of the books. Both take microseconds
under one lock, the largest push some milliseconds; who listens where is looked up in a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from tokenwatt.servers.push.keys import Key, PushKeys
from tokenwatt.servers.push.presence import Lookouts
from tokenwatt.servers.push.server import PushedServer
from tokenwatt.settings.addresses import url_key
from tokenwatt.types import ServerFailure, ServerReading, TokenReport

NEW_SERVERS_MAX: Final = 100
MODELS_MAX: Final = 100
"""Of one server, while it is there."""


class Pushed(NamedTuple):
    """What came of a push. ``refusal``: why nothing of it was counted, in one sentence."""

    accepted: int = 0
    duplicates: int = 0
    refusal: str | None = None


class _Refused(Exception):
    """This push does not go with what came before it."""


class PushedTokens:
    """The sink of pushed tokens, and the source of their servers' readings. To be made after the meter."""

    def __init__(
        self,
        configured: Iterable[tuple[str, str]],
        *,
        on_new: Callable[[str, str], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``configured``: name and url of servers that are there before their first report, while somebody listens at the url.

        ``on_new`` is called with a name and a url (empty: not known), by ``readings`` and before it returns, for each server that only a
        report named: when it begins, and again when it is back after it was gone.
        """
        self._on_new = on_new
        self._clock_ns = clock_ns
        self._started_ns = clock_ns()
        self._lock = threading.Lock()
        self._keys = PushKeys()
        self._lookouts = Lookouts()
        self._servers: dict[str, PushedServer] = {}
        self._told_of: dict[str, int] = {}
        for name, url in configured:
            self.add(name, url)

    def add(self, name: str, url: str) -> None:
        """A server that the meter knows by itself. From now on it is there while somebody listens at its url, and takes pushes."""
        with self._lock:
            self._servers[name] = self._server(name, url, configured=True)

    def names(self) -> frozenset[str]:
        """All servers that are reported for, also those that are gone."""
        with self._lock:
            return frozenset(self._servers)

    def urls(self) -> frozenset[str]:
        """Where the servers listen that are reported for, as far as that is known."""
        with self._lock:
            return frozenset(server.url for server in self._servers.values() if server.url)

    def push(self, reports: Sequence[tuple[TokenReport, tuple[str, bytes] | None]], request: tuple[str, bytes] | None) -> Pushed:
        """Count reports, all or none. Each may have an idempotency key, and so may the request: a text, and a digest of what came with it.

        What came before under the same key and digest is a duplicate, and changes nothing.
        """
        with self._lock:
            now_ns = self._clock_ns()
            self._keys.forget_old(now_ns)
            try:
                if request is not None and self._is_known("request", Key(*request), {}):
                    return Pushed(duplicates=len(reports))
                fresh = self._fresh(reports)
                self._check([report for report, _ in fresh])
            except _Refused as e:
                return Pushed(refusal=str(e))
            for report, key in fresh:
                self._count(report, now_ns)
                if key is not None:
                    self._keys.keep("report", key, now_ns)
            if request is not None:
                self._keys.keep("request", Key(*request), now_ns)
            return Pushed(len(fresh), len(reports) - len(fresh))

    def readings(self, now_ns: int) -> list[ServerReading | ServerFailure]:
        """What there is to say of each server at this instant: at most one message a server."""
        with self._lock:
            messages = [m for server in self._servers.values() if (m := server.reading(now_ns)) is not None]
            urls = {name: server.url for name, server in self._servers.items() if not server.configured}
        for message in messages:
            if isinstance(message, ServerReading) and message.server in urls:
                self._announce(message, urls[message.server])
        return messages

    def close(self) -> None:
        """End the thread that looks for listeners."""
        self._lookouts.close()

    def _announce(self, reading: ServerReading, url: str) -> None:
        began_ns = reading.process_start_ns
        if began_ns is not None and self._told_of.get(reading.server) != began_ns:
            self._told_of[reading.server] = began_ns
            self._on_new(reading.server, url)

    # --- one push ---

    def _fresh(self, reports: Sequence[tuple[TokenReport, tuple[str, bytes] | None]]) -> list[tuple[TokenReport, Key | None]]:
        """The reports that were not counted before, here or earlier in the same push."""
        here: dict[str, bytes] = {}
        fresh: list[tuple[TokenReport, Key | None]] = []
        for report, given in reports:
            key = Key(*given) if given is not None else None
            if key is None or not self._is_known("report", key, here):
                fresh.append((report, key))
            if key is not None:
                here[key.text] = key.digest
        return fresh

    def _is_known(self, of: Literal["request", "report"], key: Key, here: Mapping[str, bytes]) -> bool:
        digest = here[key.text] if key.text in here else self._keys.known(of, key)
        if digest is not None and digest != key.digest:
            raise _Refused(f"The idempotency key {key.text!r} came with another {of} before; give each {of} a key of its own.")
        return digest is not None

    def _check(self, reports: Sequence[TokenReport]) -> None:
        """Refuse what would be too many servers or models, or moves a server that the settings place."""
        models: dict[str, set[str]] = {}
        for report in reports:
            models.setdefault(report.server, set()).add(report.model)
            server = self._servers.get(report.server)
            if server is not None and server.configured and report.url and url_key(report.url) != url_key(server.url):
                raise _Refused(f"By the settings, server {report.server!r} listens at {server.url}; push without url, or with that one.")
        for name, new in models.items():
            known = self._servers[name].models if name in self._servers else set()
            if len(known | new) > MODELS_MAX:
                raise _Refused(f"Server {name!r} has {len(known)} models already, and at most {MODELS_MAX} can be told apart.")
        created = sum(not server.configured for server in self._servers.values())
        if created + len(models.keys() - self._servers.keys()) > NEW_SERVERS_MAX:
            raise _Refused(
                f"{created} servers were named by pushes already, and at most {NEW_SERVERS_MAX} can be, until tokenwatt restarts; "
                f"name a server by what it is, not by its run."
            )

    def _count(self, report: TokenReport, now_ns: int) -> None:
        server = self._servers.get(report.server)
        if server is None:
            server = self._servers[report.server] = self._server(report.server, report.url or "", configured=False)
        if report.url and not server.configured:
            server.listens_at(report.url)
        server.take(report, now_ns)

    def _server(self, name: str, url: str, *, configured: bool) -> PushedServer:
        return PushedServer(name, url, self._lookouts, configured=configured, started_ns=self._started_ns)
