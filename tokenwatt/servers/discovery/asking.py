"""Asks processes whether they are an inference server, a few at once, in threads that live no longer than there is somebody to ask."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tokenwatt.servers.discovery.listeners import Listening, Place
from tokenwatt.servers.discovery.reach import Way
from tokenwatt.servers.discovery.repetition import same
from tokenwatt.servers.http.namespaces import NotEntered, check_entry, check_route
from tokenwatt.servers.scrape import Scraper
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import Listener, ServerFailure, ServerReading

LIMIT_NS: Final = 2_500_000_000
"""What one socket may take, whatever it is asked; the next scan ends it."""
AT_ONCE: Final = 8
AGAIN_AT_ONCE: Final = 2
"""Of these, so many for those who were asked before: who hangs, hangs again, and must not keep the new ones waiting."""

ROUTE_LIMIT_S: Final = 0.5
"""For a connection to a container on this host."""

_log = logging.getLogger("tokenwatt.servers")


class Question(NamedTuple):
    """A socket to ask, and the ways to it in the order of trying."""

    listening: Listening
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Sockets of one process, in the order of asking. After the first that is a server with counters, no other is asked."""

    process: Listener
    questions: tuple[Question, ...]
    rank: int
    """Lower ones first."""
    again: bool
    beside: tuple[tuple[Place, Way], ...] = ()
    """Servers that the process is on other ports: to be told from them."""


@dataclass(slots=True)
class Outcome:
    """What came of it: a server (``reading``, at ``way``), or one that cannot be metered, or the reason of the last one asked."""

    inquiry: Inquiry
    asked: int = 0
    """How many of the questions were put."""
    reading: ServerReading | None = None
    listening: Listening | None = None
    way: Way | None = None
    not_metered: str | None = None
    reason: str = ""
    barred: bool = False
    """With ``reason``: it is in a network namespace that may not be entered."""
    repeats: Place | None = None
    """With ``reading``: that of ``beside`` which shows the same counters."""
    nothing_counted: bool = False
    """With ``repeats``: all of them zero, which says little."""


class Askers:
    """Takes inquiries and hands their outcomes to ``done``, from the threads that ask."""

    def __init__(self, done: Callable[[Outcome], None]) -> None:
        self._done = done
        self._lock = threading.Lock()
        self._waiting: list[Inquiry] = []
        self._running: list[Inquiry | None] = []
        self._scraping: dict[Scraper, int] = {}
        self._stopped = False

    def submit(self, inquiry: Inquiry) -> None:
        """Ask soon."""
        with self._lock:
            self._waiting.append(inquiry)
            if self._stopped or len(self._running) >= AT_ONCE:
                return
            self._running.append(None)
        threading.Thread(target=self._run, name="discovery-ask", daemon=True).start()

    def abort_slow(self) -> None:
        """End what takes longer than ``LIMIT_NS``. To be called at each scan."""
        with self._lock:
            late_ns = time.monotonic_ns() - LIMIT_NS
            slow = [scraper for scraper, begun_ns in self._scraping.items() if begun_ns <= late_ns or self._stopped]
        for scraper in slow:
            scraper.abort()

    def stop(self) -> None:
        """End everything, without waiting for it."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
        self.abort_slow()

    def _run(self) -> None:
        while (inquiry := self._next()) is not None:
            outcome = Outcome(inquiry)
            try:
                self._ask(outcome)
            except Exception as e:  # a mistake of ours; without an outcome the process would never be asked again
                _log.exception("Process %d could not be asked", inquiry.process.pid)
                outcome.reason = outcome.reason or f"a mistake of tokenwatt, see its log ({type(e).__name__})"
            with self._lock:
                self._running.remove(inquiry)
                self._running.append(None)
            self._done(outcome)

    def _next(self) -> Inquiry | None:
        with self._lock:
            self._running.remove(None)
            again = sum(1 for each in self._running if each is not None and each.again)
            fit = [each for each in self._waiting if not each.again or again < AGAIN_AT_ONCE]
            if self._stopped or not fit:
                return None
            inquiry = min(fit, key=lambda each: each.rank)
            self._waiting.remove(inquiry)
            self._running.append(inquiry)
            return inquiry

    def _ask(self, outcome: Outcome) -> None:
        for question in outcome.inquiry.questions:
            outcome.asked += 1
            if self._ask_one(question, outcome):
                if outcome.reading is not None and outcome.way is not None:
                    self._compare(outcome, outcome.reading, outcome.way)
                return

    def _compare(self, outcome: Outcome, before: ServerReading, way: Way) -> None:
        """With the servers beside it. Each is read before it is read again itself: tokens may move meanwhile."""
        for place, beside in outcome.inquiry.beside:
            other, after = self._scrape(beside), self._scrape(way)
            if isinstance(other, ServerFailure) or isinstance(after, ServerFailure):
                outcome.reading, outcome.reason = None, f"it could not be compared with port {place.port} of the same process"
                return
            if same(before.counters, other.counters, after.counters):
                outcome.repeats, outcome.nothing_counted = place, not any(after.counters.values())
                return
            before = after

    def _ask_one(self, question: Question, outcome: Outcome) -> bool:
        """Whether it is a server that can be read."""
        for way in question.ways:
            if (why_not := _closed(way)) is not None:
                outcome.reason, outcome.barred = str(why_not), not why_not.gone
                continue
            outcome.barred = False
            result = self._scrape(way)
            if isinstance(result, ServerReading):
                outcome.reading, outcome.listening, outcome.way = result, question.listening, way
                return True
            if result.not_metered is not None:
                outcome.not_metered, outcome.listening, outcome.way = result.not_metered, question.listening, way
            if result.not_metered is not None or outcome.not_metered is None:
                outcome.reason = result.reason
            if not result.gone:
                return False
        return False

    def _scrape(self, way: Way) -> ServerReading | ServerFailure:
        scraper = Scraper(ServerTarget(name=way.url, url=way.url, engine="auto", namespace=way.namespace))
        with self._lock:
            self._scraping[scraper] = time.monotonic_ns()
            stopped = self._stopped
        if stopped:
            scraper.abort()
        try:
            return scraper.scrape()
        finally:
            with self._lock:
                del self._scraping[scraper]
            scraper.close()


def _closed(way: Way) -> NotEntered | None:
    """Why a way into another namespace leads nowhere. Without this a server behind the next way would be asked twice."""
    if way.namespace is None:
        return None
    try:
        if way.enters:
            check_entry(way.namespace)
        else:
            parts = urlsplit(way.url)
            check_route(way.namespace, parts.hostname or "", parts.port or 0, limit_s=ROUTE_LIMIT_S)
    except NotEntered as e:
        return e
    return None
