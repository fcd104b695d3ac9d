"""What people should know of servers that are there and are not read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from tokenwatt.servers.discovery.asking import Outcome
from tokenwatt.servers.discovery.candidates import Candidate
from tokenwatt.servers.discovery.listeners import Place
from tokenwatt.settings.addresses import url_key

TRIES_BEFORE_NOTICE: Final = 3
"""Until then, a program that is known to serve may be loading its model."""

_HIDDEN: Final = "hidden "


class Notices:
    """Hands on each notice once, and None for its key when it does not hold any more."""

    def __init__(self, notice: Callable[[str, str | None], None]) -> None:
        self._notice = notice
        self._told: dict[str, str] = {}
        self._urls: dict[str, object] = {}
        """Of servers that cannot be metered, as ``url_key`` has them."""
        self._silent: set[str] = set()

    def tell(self, place: Place, text: str | None, *, url: str | None = None) -> None:
        """What holds of a port that a process listens on. ``url``: of a server that cannot be metered from here."""
        key = f"process {place.process.pid} {place.process.start_ticks} port {place.port}"
        self._tell(key, text)
        if text is None or url is None:
            self._urls.pop(key, None)
            self._silent.discard(key)
        else:
            self._urls[key] = url_key(url)

    def metered_otherwise(self, urls: Iterable[str]) -> None:
        """Withdraw what was told of servers at these urls, as long as others report for them."""
        metered = {url_key(url) for url in urls}
        for key, at in self._urls.items():
            if (at in metered) != (key in self._silent):
                self._silent ^= {key}
                self._notice(key, None if at in metered else self._told[key])

    def tell_hidden(self, hidden: Iterable[Candidate], listening: Collection[int]) -> None:
        """The processes that do not show what they hold. Those in ``listening`` were found all the same."""
        texts = {
            f"{_HIDDEN}{c.process.pid}": f"{_where(c)} does not show which ports it listens on: run tokenwatt as its user or with "
            "CAP_SYS_PTRACE, or name its url under servers in the settings"
            for c in hidden
            if c.program.standing == "serves" and c.process.pid not in listening
        }
        for key in [key for key in self._told if key.startswith(_HIDDEN) and key not in texts]:
            self._tell(key, None)
        for key, text in texts.items():
            self._tell(key, text)

    def _tell(self, key: str, text: str | None) -> None:
        if self._told.get(key) == text:
            return
        if text is None:
            del self._told[key]
        else:
            self._told[key] = text
        if key not in self._silent:
            self._notice(key, text)


def set_aside(candidate: Candidate, worker: str) -> str:
    """Of a server whose worker is read instead."""
    return f"{_where(candidate)} is not read: it passes requests on to {worker}, which counts them itself"


def not_read(outcome: Outcome, candidate: Candidate, tries: int) -> str | None:
    """Of a process that could not be read. None: it need not be a server at all, or it may still load its model."""
    if outcome.not_metered is not None and outcome.way is not None:
        return f"{outcome.not_metered} at {outcome.way.url} (process {candidate.process.pid}): {outcome.reason}"
    if candidate.program.standing != "serves" and not candidate.holds_gpu:
        return None
    if outcome.barred:
        return (
            f"{_where(candidate)} {outcome.reason}. Run tokenwatt with hostNetwork, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE, "
            "or name a url that leads to it under servers in the settings"
        )
    if tries < TRIES_BEFORE_NOTICE:
        return None
    port = outcome.inquiry.questions[0].listening.socket.port
    return f"{_where(candidate)} listens on port {port} and was not recognised as a server: {outcome.reason}"


def _where(candidate: Candidate) -> str:
    return f"{candidate.program.name} (process {candidate.process.pid})"
